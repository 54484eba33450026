//! What is done to brokers, where kwal-protocol has no request for it: once for real ones, once for embedded ones.

use bytes::{Buf, BufMut, Bytes};

use super::world::{Place, World};
use crate::raw::Broker;

/// Quotas.
impl World {
    /// Limits what the connections of this world produce or fetch, in bytes a second: `producer_byte_rate` or
    /// `consumer_byte_rate`.
    pub(crate) async fn limit(&self, what: &str, bytes_per_second: f64) {
        match self.place() {
            Place::Real(_) => {
                let mut body = Body::default();
                // One entry, of one entity.
                body.int(1).int(1).text("client-id").text(self.client_id());
                body.int(1).text(what).bytes(&bytes_per_second.to_be_bytes()).byte(0);
                // Not only to be validated.
                body.byte(0);
                let mut link = self.link().await;
                let mut answer = body.send(&mut link, ALTER_CLIENT_QUOTAS, 0).await;
                answer.advance(4 + 4);
                assert_eq!(answer.get_i16(), 0, "AlterClientQuotas");
            }
            Place::Embedded(_) => panic!("the embedded broker has no quotas"),
        }
    }
}

const ALTER_CLIENT_QUOTAS: i16 = 49;

/// The body of a request that is written here by hand, in a version before the flexible ones.
#[derive(Default)]
struct Body(Vec<u8>);

impl Body {
    fn byte(&mut self, value: u8) -> &mut Self {
        self.0.put_u8(value);
        self
    }

    fn int(&mut self, value: i32) -> &mut Self {
        self.0.put_i32(value);
        self
    }

    fn text(&mut self, value: &str) -> &mut Self {
        self.0.put_i16(i16::try_from(value.len()).unwrap());
        self.bytes(value.as_bytes())
    }

    fn bytes(&mut self, value: &[u8]) -> &mut Self {
        self.0.put_slice(value);
        self
    }

    /// The body of the answer.
    async fn send(&self, link: &mut Broker, api: i16, version: i16) -> Bytes {
        let mut frame = Vec::new();
        // Key, version, correlation id, no client id.
        frame.put_i32(i32::try_from(10 + self.0.len()).unwrap());
        frame.put_i16(api);
        frame.put_i16(version);
        frame.put_i32(7);
        frame.put_i16(-1);
        frame.put_slice(&self.0);
        let mut answer =
            link.exchange(&frame).await.unwrap_or_else(|| panic!("API {api}: the broker hung up"));
        assert_eq!(answer.get_i32(), 7);
        answer
    }
}
