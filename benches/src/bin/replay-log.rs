//! Reads a log once, and prints what it cost.
//!
//! The benchmark `replay` runs it: `replay-log SUBJECT TOPIC RECORDS STEP HOST:PORT,…`. What does not
//! only read needs more: `RECORDS SIZE CODEC BATCHES`.

use std::{env, error::Error, process::ExitCode};

use kwal_benches::replay::{self, Content, Task};

/// One thread for everything, as little as a client can have.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    kwal_benches::exit_code("replay-log", run().await.map(|()| true))
}

async fn run() -> Result<(), Box<dyn Error>> {
    let mut arguments = env::args().skip(1);
    let task = Task::from_arguments(&mut arguments)?;
    let mut content = || Content::from_arguments(&mut arguments);
    let measured = match &*task.subject {
        "fill" => return replay::fill(&task, content()?).await,
        "delete" => return replay::delete(&task).await,
        "codec" => replay::codec_alone(&task, content()?),
        "floor" => replay::floor(&task).await,
        "kwal-borrowed" => replay::borrowed(&task).await,
        "kwal-fetches" => replay::fetches(&task).await,
        "kwal-owned" => replay::owned(&task).await,
        other => Err(format!("there is no {other}").into()),
    }?;
    println!("{measured}");
    Ok(())
}
