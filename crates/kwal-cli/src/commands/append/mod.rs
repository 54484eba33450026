//! `kwal append`: appends what comes in on standard input.

mod input;
mod report;

use std::io::{self, IsTerminal as _};

use futures::{StreamExt as _, future::BoxFuture, stream::FuturesOrdered};
use kwal::{
    PartitionClient,
    client::{OffsetAt, OnFailure, Produced},
    record::{Compression, EncodedBatch},
};

use self::{
    input::{Gathered, Input, InputArgs, Inputs},
    report::Report,
};
use super::Session;
use crate::{
    connect::PartitionArgs,
    exit::{Exit, Failure},
    output::plural,
};

/// Appends what comes in on standard input to a partition
///
/// Each input is a record. What has arrived together is appended together, in batches of up to --batch-bytes,
/// with several batches in flight. An append is acknowledged when every in-sync replica has it, and is on the
/// log at most once, whatever was retried.
#[derive(Debug, clap::Args)]
#[command(after_long_help = HELP)]
pub(crate) struct Args {
    #[command(flatten)]
    partition: PartitionArgs,
    #[command(flatten)]
    input: InputArgs,
    /// The codec of batches: none, gzip, lz4, snappy or zstd, as far as it is built in
    #[arg(long, value_name = "CODEC", default_value = "none", value_parser = codec)]
    compression: Compression,
    /// Prints the offsets of each batch, and not just a summary
    #[arg(long)]
    offsets: bool,
}

const HELP: &str = "\
Inputs are numbered from 1:
  lines     each line is a value, without its line end
  prefixed  a length of 4 bytes, big-endian, and the value, which has so many bytes
  json      an object a line, {\"key\", \"value\", \"headers\": [{\"key\", \"value\"}], \"timestamp\"}, as
            `kwal read --json` prints it. Bytes are strings, or {\"base64\": \"…\"} if they are not UTF-8;
            what is missing is null. The timestamp is in milliseconds, by default the time of the append.
            `offset` and `leader_epoch` are ignored.

If an append fails, nothing that was submitted later is appended, and standard error says which inputs are on
the log, which are not, and which are in doubt. Ctrl-C stops reading, waits for what is in flight and reports
the same. A second Ctrl-C does not wait, and what is in flight then is in doubt.

In doubt is a batch whose request was sent and has no response. It was sent again, without ever being on the
log twice, until --timeout was over. To settle it once the brokers respond:
  1. Run the `kwal inspect` that standard error names. A batch with the same producer id, epoch and
     sequence number is on the log, for good. After a second Ctrl-C there are no such numbers: `kwal read`
     with the same --from shows the values.
  2. If there is none, the request may still be on its way, as in a broker that hangs. If a second copy does
     no harm, append these inputs again.
  3. If it does harm, `kwal resolve` settles it: an element of in_doubt in the JSON is what it takes. It finds
     the batch, or shuts it out for good, by a record that it appends.

It appends without an exclusive name: on a log with a holder it is not fenced. Then `kwal holder` counts its
batches among those of others, and `kwal inspect` and `kwal verify` report them.

Exits with 4 if something is in doubt, and with 5 if an input cannot be used.

JSON: with --offsets an object a line, {\"type\": \"batch\", \"inputs\": [first, last], \"offsets\": [first, last]};
at the end {\"type\": \"summary\", \"topic\", \"partition\", \"read\", \"appended\", \"batches\", \"bytes\",
\"first_offset\", \"last_offset\", \"inputs\": {\"appended\": [[first, last]], \"not_appended\": [[first, last]],
\"in_doubt\": [{\"inputs\": [first, last], \"topic\", \"topic_id\", \"partition\", \"producer_id\", \"epoch\",
\"sequence\", \"record_count\", \"after\", \"transactional_id\", \"part\"}]}, \"error\"}. After a second Ctrl-C,
elements of in_doubt have nothing but inputs.

Examples:
  echo hello | kwal append wal -p 0
  kwal append wal -p 0 --key config --header source=cli < value.txt
  kwal read wal -p 0 --json | kwal append copy -p 0 --input json --compression lz4
  tail -F events.log | kwal append wal -p 0 --offsets";

pub(crate) fn codec(name: &str) -> Result<Compression, String> {
    match name.parse::<Compression>() {
        Ok(codec) if codec.is_built_in() => Ok(codec),
        _ => {
            let all = Compression::ALL.into_iter().filter(|codec| codec.is_built_in());
            let names: Vec<_> = all.map(Compression::name).collect();
            Err(format!("not in this build, which has {}", names.join(", ")))
        }
    }
}

pub(crate) async fn run(session: &mut Session, args: Args) -> Result<Exit, Failure> {
    let client = session.client().await?;
    let index = args.partition.index(&client, &session.interrupt).await?;
    let open = client.partition_client(&args.partition.topic, index);
    let open = open.compression(args.compression).on_failure(OnFailure::Stop);
    let partition = session.interrupt.or(open).await?;
    let end_before = session.interrupt.or(partition.get_offset(OffsetAt::Latest)).await?;
    if io::stdin().is_terminal() {
        session.out.tell("reading lines; Ctrl-D ends");
    }
    let report = Report::new(&partition, end_before, args.offsets);
    let mut appending = Appending { partition: &partition, in_flight: FuturesOrdered::new(), report };
    let ended = appending.run(session, Input::read(args.input)).await;
    appending.report.print(session, ended)
}

/// The result of a batch, with the inputs that it has.
struct Done {
    inputs: Inputs,
    result: Result<Produced, kwal::Error>,
}

struct Appending<'a> {
    partition: &'a PartitionClient,
    in_flight: FuturesOrdered<BoxFuture<'static, Done>>,
    report: Report,
}

impl Appending<'_> {
    /// Appends until the input ends, an append fails or the command is to stop, and waits for the results.
    async fn run(&mut self, session: &mut Session, mut input: Input) -> Result<(), Failure> {
        let interrupt = session.interrupt.clone();
        let ended = loop {
            if let Some(error) = self.report.error() {
                break Err(error.clone().into());
            }
            tokio::select! {
                biased;
                () = interrupt.stop() => break Err(Failure::Interrupted(String::new())),
                Some(done) = self.in_flight.next() => self.report.note(session, done),
                next = input.next() => match next {
                    Some(Gathered { inputs, records }) => {
                        self.report.read(&inputs);
                        let encoded = self.partition.encode(&records);
                        drop(records);
                        match encoded {
                            Ok(batch) => self.submit(session, inputs, batch).await,
                            Err(error) => self.report.reject(inputs, error),
                        }
                    }
                    None => break input.end(),
                },
            }
        };
        let mut is_told = false;
        loop {
            tokio::select! {
                biased;
                done = self.in_flight.next() => match done {
                    Some(done) => self.report.note(session, done),
                    None => break,
                },
                () = interrupt.abandon() => {
                    self.report.abandon();
                    break;
                }
                () = interrupt.stop(), if !is_told => {
                    let count = plural(self.in_flight.len() as u64, "batch");
                    session
                        .out
                        .tell(format_args!("waiting for {count} in flight; Ctrl-C again leaves that in doubt"));
                    is_told = true;
                }
            }
        }
        ended
    }

    /// Submits a batch as soon as there is room for it, and takes results until then.
    async fn submit(&mut self, session: &mut Session, inputs: Inputs, batch: EncodedBatch) {
        let interrupt = session.interrupt.clone();
        let reserve = self.partition.reserve(batch.size_in_bytes()).into_future();
        tokio::pin!(reserve);
        loop {
            tokio::select! {
                biased;
                () = interrupt.stop() => {
                    self.report.drop(inputs);
                    return;
                }
                Some(done) = self.in_flight.next() => self.report.note(session, done),
                permit = &mut reserve => {
                    match permit {
                        Ok(permit) => {
                            let append = permit.submit(batch);
                            self.report.submitted(inputs.clone());
                            self.in_flight.push_back(Box::pin(async move {
                                Done { inputs, result: append.await }
                            }));
                        }
                        Err(error) => self.report.reject(inputs, error),
                    }
                    return;
                }
            }
        }
    }
}
