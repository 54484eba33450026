//! Waits for brokers. The request is written by hand, so that it does not depend on the code under test.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

const PAUSE: Duration = Duration::from_millis(25);
const TRIES: u32 = 60_000 / 25;

/// Waits until the broker on `port` lists at least `brokers` and a controller, for about a minute, while it
/// is `alive`.
pub(super) fn wait(port: u16, brokers: usize, alive: impl Fn() -> bool) -> Result<(), String> {
    let mut last = String::new();
    for _ in 0..TRIES {
        match brokers_known(port) {
            Ok(known) if known >= brokers => return Ok(()),
            Ok(known) => last = format!("lists {known} of {brokers} brokers"),
            Err(e) => last = format!("does not answer: {e}"),
        }
        if !alive() {
            return Err("has ended".to_owned());
        }
        std::thread::sleep(PAUSE);
    }
    Err(last)
}

/// Returns how many brokers Metadata lists; 0 while there is no controller.
fn brokers_known(port: u16) -> io::Result<usize> {
    // Metadata, version 1: api key 3, correlation id 1, no client id; no topics.
    const METADATA: [u8; 18] = [0, 0, 0, 14, 0, 3, 0, 1, 0, 0, 0, 1, 0xff, 0xff, 0, 0, 0, 0];
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(&METADATA)?;
    let length = u64::try_from(read_i32(&mut stream)?).unwrap_or(0);
    let mut response = stream.take(length.min(1 << 20));
    read_i32(&mut response)?;
    let brokers = usize::try_from(read_i32(&mut response)?).unwrap_or(0);
    for _ in 0..brokers {
        // Id, host, port, rack.
        read_i32(&mut response)?;
        skip_string(&mut response)?;
        read_i32(&mut response)?;
        skip_string(&mut response)?;
    }
    let controller = read_i32(&mut response)?;
    Ok(if controller < 0 { 0 } else { brokers })
}

fn read_i32(input: &mut impl Read) -> io::Result<i32> {
    let mut bytes = [0; 4];
    input.read_exact(&mut bytes)?;
    Ok(i32::from_be_bytes(bytes))
}

fn skip_string(input: &mut impl Read) -> io::Result<()> {
    let mut length = [0; 2];
    input.read_exact(&mut length)?;
    let length = u64::try_from(i16::from_be_bytes(length)).unwrap_or(0);
    io::copy(&mut input.take(length), &mut io::sink()).map(drop)
}
