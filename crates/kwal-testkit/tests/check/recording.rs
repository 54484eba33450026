//! Histories that are recorded while they happen.

use std::time::Duration;

use kwal_testkit::check::{Expect, Log, Recorder, Writer};
use tokio::time::{sleep, timeout};

#[tokio::test(start_paused = true)]
async fn many_tasks_record_one_history_in_tokios_time() {
    let recorder = Recorder::new();
    let seconds = Duration::from_secs;
    let writer = recorder.now().writer(Writer::new(("wal", 0)).deadline(seconds(5)));
    let tasks = (0..4_u64).map(|number| {
        let ticket = recorder.queue(writer, [number]);
        assert_eq!(ticket.append().0, number);
        tokio::spawn(timeout(seconds(4), async move {
            sleep(seconds(number + 1)).await;
            match number {
                0 => ticket.acked(0),
                1 => ticket.not_appended(),
                2 => ticket.unknown(),
                _ => sleep(seconds(100)).await,
            }
        }))
    });
    for task in tasks.collect::<Vec<_>>() {
        let _ = task.await.unwrap();
    }
    recorder.submit(writer, ["x"]).withdrawn();
    recorder.start(writer, ["y", "z"]).acked(1);
    recorder.now().log(Log::new(("wal", 0), 0..3, [(0, "0"), (1, "y"), (2, "z")]));
    recorder.now().check(&Expect::default()).assert();
    assert_eq!(
        recorder.now().to_string(),
        "\
0 writer w0 wal-0 deadline=5
0 queue a0 w0 0
0 queue a1 w0 1
0 queue a2 w0 2
0 queue a3 w0 3
1 acked a0 0
2 not-appended a1
3 unknown a2
4 dropped a3
4 submit a4 w0 x
4 withdrawn a4
4 start a5 w0 y z
4 acked a5 1
4 log wal-0 0 3 @0 0 y z
"
    );
}

#[test]
fn without_a_runtime_times_are_real() {
    let recorder = Recorder::default();
    let writer = recorder.now().writer(("wal", 0));
    let threads: Vec<_> = (0..8_u32)
        .map(|thread| {
            let recorder = recorder.clone();
            std::thread::spawn(move || {
                for number in 0..100 {
                    drop(recorder.start(writer, [format!("{thread}-{number}")]));
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    recorder.now().log(Log::new(("wal", 0), 0..0, [(0, ""); 0]));
    let verdict = recorder.now().check(&Expect::default());
    assert!(verdict.holds(), "{verdict}");
    assert_eq!(verdict.tally().dropped, 800);
    assert!(recorder.now().events().is_sorted_by_key(|(at, _)| *at));
}
