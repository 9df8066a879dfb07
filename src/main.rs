//! The command line: parses, dispatches, and prints what went wrong.

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory, Parser, Subcommand};
use clap_complete::Shell;
use ringway::commands::admin::{self, AdminArgs};
use ringway::commands::config::{self, ConfigCommand};
use ringway::commands::{manual, measure};
use ringway::config::Config;
use ringway::config::args::ConfigArgs;
use ringway::doctor::cli::DoctorArgs;
use ringway::token::cli::TokenArgs;
use ringway::{doctor, log, serve, store_cli, token};
use ringway_load::args::{BenchArgs, ChatArgs};
use ringway_load::cli::{run_bench, run_chat};
use ringway_load::outcome::Outcome;
use ringway_load::soak;
use ringway_load::soak::args::SoakArgs;

#[derive(Parser, Debug)]
#[command(name = "ringway", version = ringway::VERSION, about, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Run the gateway until it is told to stop (SIGTERM or Ctrl-C).
    Serve(ServeArgs),
    /// Mint a login token with the gateway's shared secret.
    Token(TokenArgs),
    /// Measure a gateway, checking every delivery.
    Bench(BenchArgs),
    /// Hold many connections for long, check every delivery, and say whether the gateway passed.
    Soak(SoakArgs),
    /// A process of a soak.
    #[command(name = soak::children::SUBCOMMAND, hide = true)]
    SoakProcess,
    /// Talk to a gateway: lines of the input are messages, what others say is printed.
    Chat(ChatArgs),
    /// Ask and tell a gateway that runs here: users, connections, groups, figures, who may not log in.
    Admin(AdminArgs),
    /// Say whether this host is fit for so many connections, and what to do if not; exits with 0 (it is), 1
    /// (warnings) or 2 (it is not, or nothing can be said).
    Doctor(DoctorArgs),
    /// Look at settings.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Look at a journal.
    #[command(subcommand)]
    Journal(JournalCommand),
    /// Look at the store.
    #[command(subcommand)]
    Store(StoreCommand),
    /// Print what completes this command line in a shell.
    Completions {
        /// Which shell.
        shell: Shell,
    },
    /// Print the manual page, or write those of all commands into a directory.
    Man {
        /// The directory.
        #[arg(long, value_name = "DIR")]
        into: Option<PathBuf>,
    },
}

#[derive(Args, Debug)]
struct ServeArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Where clients connect [default: 127.0.0.1:7400].
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<String>,
    /// Where health, metrics and the backend's API are served over HTTP [default: 127.0.0.1:7401].
    #[arg(long, value_name = "ADDRESS:PORT")]
    admin: Option<String>,
    /// How many shards, or auto.
    #[arg(long, value_name = "N")]
    shards: Option<String>,
    /// The CPUs the gateway may use, as in 0,2-3.
    #[arg(long, value_name = "LIST")]
    cpus: Option<String>,
    /// Print what is in force as TOML, with where each value came from, and stop.
    #[arg(long)]
    print_config: bool,
}

#[derive(Subcommand, Debug)]
enum StoreCommand {
    /// Compare it with the journal: 0 if nothing differs, 1 if something does, 2 if it could not be told.
    Check(ConfigArgs),
    /// Make a MySQL database readable again where messages are missing: deletes the inbox rows that refer to them.
    Repair(ConfigArgs),
}

#[derive(Subcommand, Debug)]
enum JournalCommand {
    /// Check every segment of a journal; exits non-zero if it is damaged.
    Verify {
        /// The journal's directory, or a data directory that has one.
        dir: PathBuf,
    },
}

fn main() -> ExitCode {
    let command = Cli::parse().command;
    let exit_code = failure_code(&command);
    run(command).unwrap_or_else(|error| {
        print_chain(error.as_ref());
        ExitCode::from(exit_code)
    })
}

/// What an error ends with: where 1 says something else, it is another number.
fn failure_code(command: &Command) -> u8 {
    match command {
        Command::Soak(_) => soak::verdict::NOT_CARRIED_OUT,
        Command::Doctor(_) => doctor::cli::NOT_EXAMINED,
        Command::Store(_) => store_cli::NOT_COMPARED,
        _ => 1,
    }
}

fn run(command: Command) -> Result<ExitCode, Box<dyn Error>> {
    match command {
        Command::Serve(args) => run_gateway(&args)?,
        Command::Token(args) => token::cli::run(&args)?,
        Command::Bench(args) => return Ok(exit_code(run_bench(&args, &measure::GatewayStores)?)),
        Command::Soak(args) => return Ok(ExitCode::from(soak::conduct::run(&args, measure::SOAK_FACTS)?.exit_code())),
        Command::SoakProcess => soak::process::run()?,
        Command::Chat(args) => return Ok(exit_code(run_chat(&args)?)),
        Command::Admin(args) => admin::run(&args)?,
        Command::Doctor(args) => return doctor::cli::run(&args),
        Command::Config(command) => config::run(&command)?,
        Command::Journal(JournalCommand::Verify { dir }) => store_cli::verify_journal(&dir)?,
        Command::Store(StoreCommand::Check(args)) => return Ok(store_cli::run(&args.config()?)),
        Command::Store(StoreCommand::Repair(args)) => return Ok(store_cli::repair(&args.config()?)),
        Command::Completions { shell } => manual::completions(&mut Cli::command(), shell, &mut std::io::stdout())?,
        Command::Man { into: Some(directory) } => manual::pages(Cli::command(), &directory)?,
        Command::Man { into: None } => manual::page(Cli::command(), &mut std::io::stdout())?,
    }
    Ok(ExitCode::SUCCESS)
}

fn run_gateway(args: &ServeArgs) -> Result<(), Box<dyn Error>> {
    let flags = [("listen", &args.listen), ("admin", &args.admin), ("shards", &args.shards), ("cpus", &args.cpus)];
    let typed = args.config.typed(&flags)?;
    let config = Config::new(&typed)?;
    if args.print_config {
        print!("{}", typed.print());
        return Ok(());
    }
    log::start(&config.log);
    let read_settings = || Ok(args.config.typed(&flags)?);
    Ok(serve::run(&config, &typed, &read_settings)?)
}

fn exit_code(outcome: Outcome) -> ExitCode {
    match outcome {
        Outcome::Clean => ExitCode::SUCCESS,
        Outcome::NotClean => ExitCode::FAILURE,
    }
}

fn print_chain(error: &dyn Error) {
    eprintln!("ringway: {error}");
    let mut source = error.source();
    while let Some(error) = source {
        eprintln!("  because: {error}");
        source = error.source();
    }
}
