//! The command line: a server, unless a command asks for something else.

use std::ffi::OsString;

use clap::{Args, CommandFactory, Parser, Subcommand};

use crate::config::Config;
use crate::protocol::address::Address;
use crate::protocol::name::{self, Name};

/// Everything that can stand on the command line.
#[derive(Debug, Parser)]
#[command(
    name = "parlour",
    version,
    about = "A small WebSocket chat server. Without options it serves http://127.0.0.1:8080/",
    args_conflicts_with_subcommands = true
)]
pub struct Options {
    /// What the server goes by.
    #[command(flatten)]
    pub config: Config,
    /// Something else than to serve.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// What the program does beside serving.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Talk in a room from this terminal; without a terminal, each line of standard input is a
    /// message
    Chat(Chat),
    /// Ask whether a server is well: the exit status is 0 if it is, else 1
    Healthcheck {
        /// Its address; by default that of a server on this machine, where PARLOUR_LISTEN says if
        /// it is set
        url: Option<String>,
    },
}

/// Options of `parlour chat`.
#[derive(Args, Debug)]
#[command(
    after_help = "In a terminal, /help lists the commands. Without one, the end of the input ends it, once all is delivered."
)]
pub struct Chat {
    /// Address of the server, or of a room's page
    #[arg(value_name = "URL", default_value = "ws://127.0.0.1:8080/", value_parser = Address::parse)]
    pub address: Address,

    /// Your name; without one, the server makes a guest's
    #[arg(long, value_name = "NAME", value_parser = valid_name)]
    pub name: Option<String>,

    /// The room; by default the one that the URL names, or the lobby
    #[arg(long, value_name = "ROOM", value_parser = valid_room)]
    pub room: Option<String>,

    /// Print each message of the server as it comes, one JSON object a line
    #[arg(long)]
    pub json: bool,
}

impl Options {
    /// Reads the command line (the program's name first) and the environment.
    ///
    /// # Errors
    /// What clap says of a bad option, and of `--help` and `--version`, which are no failures.
    pub fn read<I, T>(args: I) -> Result<Options, clap::Error>
    where
        I: IntoIterator<Item = T>,
        T: Into<OsString> + Clone,
    {
        let options = Options::try_parse_from(args)?;
        options.config.check()?;
        Ok(options)
    }

    /// What to type for help about `args`: a command has help of its own.
    pub fn help_for(mut args: impl Iterator<Item = OsString>) -> String {
        let command =
            args.nth(1).and_then(|word| Options::command().find_subcommand(word).cloned());
        command.map_or_else(
            || "parlour --help".into(),
            |command| format!("parlour {} --help", command.get_name()),
        )
    }
}

fn valid_name(text: &str) -> Result<String, &'static str> {
    let name = Name::parse(text).map_err(|reason| reason.advice().unwrap_or_default())?;
    Ok(name.shown.to_string())
}

fn valid_room(text: &str) -> Result<String, &'static str> {
    name::parse_room(text).map_err(|reason| reason.advice().unwrap_or_default())
}
