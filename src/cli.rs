//! The command line and the exit statuses. Without a command, parlour serves the chat.

use std::ffi::OsString;

use clap::error::ErrorKind;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::config::{self, Config};
use crate::protocol::address::Address;
use crate::protocol::name::{self, Name};

/// The program's name. Errors and notes on standard error begin with it, lines of the log do not.
pub const PROGRAM: &str = "parlour";

/// Exit status after an error.
pub const FAILURE: u8 = 1;
/// Exit status for a command line that is wrong.
pub const USAGE: u8 = 2;
/// Exit status after a signal, before its number is added, as shells count.
pub const SIGNAL_BASE: u8 = 128;

/// Everything that the command line can hold.
#[derive(Debug, Parser)]
#[command(
    name = PROGRAM,
    version,
    about = "A small WebSocket chat server. Without options it serves http://127.0.0.1:8080/",
    args_conflicts_with_subcommands = true
)]
pub struct Options {
    /// Options of the server. Of the commands, `healthcheck` reads one from the environment.
    #[command(flatten)]
    pub config: Config,
    /// What to do instead of serving.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// What the program can do other than serve. Their docs are the texts of `--help`.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Chat in a room from this terminal; without a terminal, send each line of standard input
    Chat(Chat),
    /// Check that a server answers: the exit status is 0 if it does, otherwise 1
    Healthcheck {
        /// Address of the server; by default the one on this machine, at PARLOUR_LISTEN if set
        url: Option<String>,
    },
}

/// Options of `parlour chat`.
#[derive(Args, Debug)]
#[command(after_help = "In a terminal, /help lists the commands. \
        Without one, the end of the input ends the chat, once every message has arrived.")]
pub struct Chat {
    /// Address of the server, or of a room's page
    #[arg(value_name = "URL", default_value = "ws://127.0.0.1:8080/")]
    #[arg(value_parser = Address::parse)]
    pub address: Address,

    /// Your name; without it, the server gives you a guest's name
    #[arg(long, value_name = "NAME", value_parser = parse_name)]
    pub name: Option<String>,

    /// The room; by default the one in the URL, or the lobby
    #[arg(long, value_name = "ROOM", value_parser = parse_room)]
    pub room: Option<String>,

    /// Print each message of the server as it arrives, one JSON object per line
    #[arg(long)]
    pub json: bool,
}

impl Options {
    /// Reads the command line (the program's name first) and the environment. A wrong variable of
    /// the server does not stop a command that needs none.
    ///
    /// # Errors
    /// Returns clap's error about a bad option; also for `--help` and `--version`, which are not
    /// failures.
    pub fn read<I, T>(args: I) -> Result<Options, clap::Error>
    where
        I: IntoIterator<Item = T>,
        T: Into<OsString>,
    {
        let args: Vec<OsString> = args.into_iter().map(Into::into).collect();
        let matches = config::parse(Options::command(), args.clone())?;
        let mut options = Options::from_arg_matches(&matches)?;
        match options.command {
            None => {
                options.config = Config::read(args)?;
                check_addresses(&options.config)?;
            }
            Some(Command::Healthcheck { url: None }) => options.config = Config::read([PROGRAM])?,
            Some(Command::Healthcheck { url: Some(_) } | Command::Chat(_)) => {}
        }
        Ok(options)
    }

    /// Returns what to type for help about `args`: each command has a help page of its own.
    pub fn help_for(mut args: impl Iterator<Item = OsString>) -> String {
        let command =
            args.nth(1).and_then(|word| Options::command().find_subcommand(word).cloned());
        match command {
            Some(command) => format!("{PROGRAM} {} --help", command.get_name()),
            None => format!("{PROGRAM} --help"),
        }
    }
}

/// Checks the addresses to listen on, as far as that needs no network.
fn check_addresses(config: &Config) -> Result<(), clap::Error> {
    let metrics_listen = config.metrics_listen.as_ref().map(|text| ("metrics-listen", text));
    for (option, text) in [("listen", &config.listen)].into_iter().chain(metrics_listen) {
        Address::parse_listen(text).map_err(|problem| {
            let problem = format!("{}{text}: {problem}", config.prefix(option));
            Options::command().error(ErrorKind::ValueValidation, problem)
        })?;
    }
    Ok(())
}

/// Checks a nickname.
///
/// # Errors
/// Says what a nickname may be.
pub fn parse_name(text: &str) -> Result<String, &'static str> {
    let name = Name::parse(text).map_err(|reason| reason.advice().unwrap_or_default())?;
    Ok(name.shown.to_string())
}

/// Checks the name of a room.
///
/// # Errors
/// Says what the name of a room may be.
pub fn parse_room(text: &str) -> Result<String, &'static str> {
    name::parse_room(text).map_err(|reason| reason.advice().unwrap_or_default())
}
