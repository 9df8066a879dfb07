//! The command line: parses, dispatches, and is the only printer of error chains.

use std::error::Error;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use ringway::config::Config;
use ringway::config::typed::{Origin, Typed};
use ringway::doctor;
use ringway::journal::disk::Directory;
use ringway::journal::recovery;
use ringway::store;
use ringway::{log, measure, serve, token};
use ringway_load::cli::{BenchArgs, ChatArgs, Outcome, run_bench, run_chat};
use ringway_load::soak;
use ringway_load::soak::args::SoakArgs;
use ringway_wire::ids::{DeviceId, UserId};

#[derive(Parser, Debug)]
#[command(name = "ringway", version, about, max_term_width = 100)]
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
    /// Say whether this host is fit for so many connections, and what to do if not; exits with 0 (it is), 1
    /// (warnings) or 2 (it is not, or nothing can be said).
    Doctor(DoctorArgs),
    /// Look at a journal.
    #[command(subcommand)]
    Journal(JournalCommand),
    /// Look at the store.
    #[command(subcommand)]
    Store(StoreCommand),
}

#[derive(Args, Debug)]
struct ConfigArgs {
    /// TOML file with settings (also RINGWAY_CONFIG).
    #[arg(long, value_name = "FILE", env = "RINGWAY_CONFIG")]
    config: Option<PathBuf>,
    /// Where the journal, the store and the development secret are.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<String>,
    /// Any key of the configuration, as in --set session.heartbeat_s=20.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
}

#[derive(Args, Debug)]
struct ServeArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Where clients connect [default: 127.0.0.1:7400].
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<String>,
    /// Where health and metrics are served over HTTP [default: 127.0.0.1:7401].
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

#[derive(Args, Debug)]
struct DoctorArgs {
    #[command(flatten)]
    config: ConfigArgs,
    #[command(flatten)]
    options: doctor::cli::DoctorOptions,
}

#[derive(Args, Debug)]
struct TokenArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// The user the token is for.
    #[arg(long)]
    user: u64,
    /// The only device it is good for; without it, any.
    #[arg(long)]
    device: Option<u64>,
    /// How long it is good for: 90s, 15m, 1h30m, 7d.
    #[arg(long, default_value = "1h", value_parser = token::parse_duration)]
    ttl: Duration,
}

#[derive(Subcommand, Debug)]
enum StoreCommand {
    /// Compare it with the journal: 0 if nothing differs, 1 if something does, 2 if it could not be told.
    Check(ConfigArgs),
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
    match run(Cli::parse().command) {
        Ok(code) => code,
        Err(error) => {
            print_chain(error.as_ref());
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<ExitCode, Box<dyn Error>> {
    match command {
        Command::Serve(args) => {
            let typed = args.config.typed(&[
                ("listen", &args.listen),
                ("admin", &args.admin),
                ("shards", &args.shards),
                ("cpus", &args.cpus),
            ])?;
            let config = Config::new(&typed)?;
            if args.print_config {
                print!("{}", typed.print());
                return Ok(ExitCode::SUCCESS);
            }
            log::start(&config.log);
            serve::run(&config)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Token(args) => {
            let config = Config::new(&args.config.typed(&[])?)?;
            println!("{}", token::mint(&config, UserId(args.user), args.device.map(DeviceId), args.ttl)?);
            Ok(ExitCode::SUCCESS)
        }
        Command::Bench(args) => Ok(exit_code(run_bench(&args, &measure::GatewayStores)?)),
        Command::Soak(args) => match soak::conduct::run(&args, measure::SOAK_FACTS) {
            Ok(outcome) => Ok(ExitCode::from(outcome.exit_code())),
            Err(error) => {
                print_chain(&error);
                Ok(ExitCode::from(soak::verdict::NOT_CARRIED_OUT))
            }
        },
        Command::SoakProcess => {
            soak::process::run()?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Chat(args) => Ok(exit_code(run_chat(&args)?)),
        Command::Doctor(args) => Ok(diagnose(&args)),
        Command::Store(StoreCommand::Check(args)) => {
            let config = args.typed(&[]).and_then(|typed| Ok(Config::new(&typed)?));
            Ok(config.map_or_else(
                |error| {
                    print_chain(error.as_ref());
                    ExitCode::from(store::cli::NOT_COMPARED)
                },
                |config| store::cli::run(&config),
            ))
        }
        Command::Journal(JournalCommand::Verify { dir }) => {
            verify_journal(&dir)?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Prints what the doctor says; that nothing could be said is as bad as what it could say worst.
fn diagnose(args: &DoctorArgs) -> ExitCode {
    let examined = || -> Result<doctor::report::Report, Box<dyn Error>> {
        let config = Config::new(&args.config.typed(&[])?)?;
        Ok(doctor::cli::examine(&args.options, &config)?)
    };
    match examined() {
        Ok(report) => {
            let text = if args.options.json { report.json() } else { report.table() };
            // Whoever reads may have seen enough; the exit code says the rest.
            std::io::stdout().write_all(text.as_bytes()).ok();
            ExitCode::from(report.outcome.exit_code())
        }
        Err(error) => {
            print_chain(error.as_ref());
            ExitCode::from(doctor::report::Outcome::CannotServe.exit_code())
        }
    }
}

/// Prints what a journal holds; corruption is an error.
fn verify_journal(dir: &Path) -> Result<(), Box<dyn Error>> {
    let inner = dir.join("journal");
    let dir = if inner.is_dir() { &inner } else { dir };
    let disk = Directory::existing(dir).map_err(|error| format!("{}: {error}", dir.display()))?;
    let report = recovery::verify(&disk)?;
    let journal = &report.journal;
    if journal.segments == 0 {
        return Err(format!("{} holds no journal", dir.display()).into());
    }
    println!("{}: every batch is whole", dir.display());
    println!("  positions  {} to {}", journal.first.0, journal.end.0);
    println!("  segments   {}", journal.segments);
    println!("  batches    {}", journal.batches);
    println!("  records    {}", report.records);
    println!("  messages   {}, {} inbox rows", report.messages, report.rows);
    println!("  changes    {} of groups", report.changes);
    if let Some(torn) = &journal.torn {
        println!(
            "  torn end   {} from byte {}: being written when the power went, nobody was told of it; the next start \
             throws it away",
            torn.file, torn.offset
        );
    }
    Ok(())
}

fn exit_code(outcome: Outcome) -> ExitCode {
    match outcome {
        Outcome::Clean => ExitCode::SUCCESS,
        Outcome::NotClean => ExitCode::FAILURE,
    }
}

impl ConfigArgs {
    /// Defaults, file, environment, and these flags over them.
    fn typed(&self, flags: &[(&str, &Option<String>)]) -> Result<Typed, Box<dyn Error>> {
        let mut typed = Typed::defaults();
        if let Some(file) = &self.config {
            typed.read_file(file)?;
        }
        typed.read_environment(
            std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?))),
        )?;
        for pair in &self.set {
            typed.set_pair(pair)?;
        }
        for (name, value) in flags.iter().chain(&[("data_dir", &self.data_dir)]) {
            if let Some(value) = value {
                typed.set(name, value.clone(), Origin::Flag)?;
            }
        }
        Ok(typed)
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
