use kwal_protocol::{
    error_code::ErrorCode,
    messages::{InitProducerIdRequest, InitProducerIdResponse},
};

use super::{Arrival, Cluster, Serve, Served};

impl Serve for InitProducerIdRequest {
    fn refuse(&self, _: &Cluster, code: ErrorCode) -> InitProducerIdResponse {
        InitProducerIdResponse { error_code: code, producer_epoch: -1, ..InitProducerIdResponse::default() }
    }

    /// Without a transactional id, every call gets an id of its own, whatever id it brings. This broker coordinates no
    /// transactions.
    fn serve(self, cluster: &mut Cluster, _: &Arrival) -> Served<InitProducerIdResponse> {
        let refused = match self.transactional_id.as_deref() {
            Some("") => Some(ErrorCode::INVALID_REQUEST),
            Some(_) => Some(ErrorCode::NOT_COORDINATOR),
            None if (self.producer_id == -1) != (self.producer_epoch == -1) => {
                Some(ErrorCode::INVALID_REQUEST)
            }
            None => None,
        };
        if let Some(code) = refused {
            return Served::Reply(self.refuse(cluster, code));
        }
        let producer_id = cluster.next_producer_id;
        cluster.next_producer_id += 1;
        Served::Reply(InitProducerIdResponse {
            producer_id,
            producer_epoch: 0,
            ..InitProducerIdResponse::default()
        })
    }
}
