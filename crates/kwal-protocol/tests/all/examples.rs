//! The examples that run by themselves. `kwal-testkit` runs the client on an embedded broker.

#[path = "../../examples/captured_frame.rs"]
mod captured_frame;
#[path = "../../examples/tiny_client.rs"]
#[allow(dead_code, reason = "the example has a main")]
mod tiny_client;

#[test]
fn captured_frames_are_decoded() {
    captured_frame::main().unwrap();
}

#[test]
fn the_tiny_client_talks_to_its_peer() {
    tiny_client::talk_to_a_peer().unwrap();
}
