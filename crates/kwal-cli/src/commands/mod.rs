//! The commands: each has its arguments, their help and a `run`.

pub(crate) mod append;
pub(crate) mod audit;
pub(crate) mod bench;
pub(crate) mod completions;
pub(crate) mod holder;
pub(crate) mod inspect;
pub(crate) mod offsets;
pub(crate) mod read;
pub(crate) mod resolve;
pub(crate) mod topics;
pub(crate) mod trim;
pub(crate) mod verify;

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};

use kwal::{Client, ControllerClient};

use crate::{
    cli::{Cli, Command},
    connect::ConnectArgs,
    exit::{Exit, Failure},
    interrupt::Interrupt,
    output::Output,
};

/// What every command works with.
#[derive(Debug)]
pub(crate) struct Session {
    connect: ConnectArgs,
    pub(crate) out: Output,
    pub(crate) interrupt: Interrupt,
}

/// Runs the command of a command line.
pub(crate) async fn run(cli: Cli, interrupt: Interrupt) -> Result<Exit, Failure> {
    let mut session = Session { connect: cli.connect, out: Output::new(&cli.output), interrupt };
    let session = &mut session;
    let ended = match cli.command {
        Command::Topics(args) => topics::run(session, args).await,
        Command::Audit(args) => audit::run(session, args).await,
        Command::Append(args) => append::run(session, args).await,
        Command::Read(args) => read::read(session, args).await,
        Command::Follow(args) => read::follow(session, args).await,
        Command::Offsets(args) => offsets::run(session, args).await,
        Command::Resolve(args) => resolve::run(session, args).await,
        Command::Trim(args) => trim::run(session, args).await,
        Command::Inspect(args) => inspect::run(session, args).await,
        Command::Holder(args) => holder::run(session, args).await,
        Command::Verify(args) => verify::run(session, args).await,
        Command::Bench(args) => bench::run(session, args).await,
        Command::Completions(args) => completions::run(session, args),
    };
    // What was printed before a failure is shown before the failure.
    let flushed = session.out.flush();
    let exit = ended?;
    match flushed {
        // A reader that has seen enough does not change what happened.
        Err(failure) if failure.exit() != Exit::Success => Err(failure),
        _ => Ok(exit),
    }
}

impl Session {
    /// Connects to the cluster.
    pub(crate) async fn client(&self) -> Result<Client, Failure> {
        self.connect.client(&self.interrupt).await
    }

    /// Connects to the cluster to administer it.
    pub(crate) async fn controller(&self) -> Result<ControllerClient, Failure> {
        let client = self.client().await?;
        self.interrupt.or(client.controller_client()).await
    }

    /// Asks on the terminal whether to do what cannot be undone; elsewhere, `--yes` has to be given.
    pub(crate) async fn confirm(&self, question: &str, yes: bool) -> Result<bool, Failure> {
        if yes {
            return Ok(true);
        }
        // A question that nobody sees is not answered.
        if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
            return Err(Failure::usage(format!("{question} takes --yes where nobody can be asked")));
        }
        let question = format!("kwal: {question}? [y/N] ");
        let asked = self.interrupt.or_blocking(move || {
            write!(io::stderr(), "{question}").and_then(|()| io::stderr().flush())?;
            let mut line = String::new();
            io::stdin().lock().read_line(&mut line).map(|_| line)
        });
        let line = asked.await?.map_err(|error| Failure::local("standard input cannot be read", &error))?;
        if !line.ends_with('\n') {
            // Ctrl-D leaves the cursor after the question.
            let _ = writeln!(io::stderr());
        }
        let is_yes = ["y", "yes"].iter().any(|yes| line.trim().eq_ignore_ascii_case(yes));
        if !is_yes {
            self.out.tell("nothing was changed");
        }
        Ok(is_yes)
    }
}

/// What is said if a change was under way when Ctrl-C came.
pub(crate) const MAY_HAVE_CHANGED: &str = "the change may have taken effect, or may still";

/// The ids of brokers, as `1,2,3`.
pub(crate) fn ids(ids: &[i32]) -> String {
    ids.iter().map(i32::to_string).collect::<Vec<_>>().join(",")
}
