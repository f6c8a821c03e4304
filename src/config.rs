//! The server's options: flags override the environment, which overrides the defaults.
//!
//! They are checked once, at start. This file imports nothing else of parlour.

use std::ffi::OsString;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;
use std::{env, mem};

use clap::builder::RangedU64ValueParser;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Command, CommandFactory, FromArgMatches, Parser, ValueEnum};
use ipnet::IpNet;

/// How every variable of an option begins.
const VARIABLE_PREFIX: &str = "PARLOUR_";
/// What stands between the items of a list.
const LIST_DELIMITER: char = ',';
/// How much a variable must resemble an option's, from 0 to 1, to be taken for a mistyped one. clap
/// asks for as much of flags.
const LIKENESS_MIN: f64 = 0.7;

/// Longest duration of an option. Deadlines are computed by adding it to the clock, which must not
/// overflow.
const DURATION_MAX: Duration = Duration::from_secs(365 * 24 * 3600);

/// Every option of the server. Each flag is also an environment variable, `PARLOUR_` and its name.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "parlour",
    version,
    after_help = "Durations have a unit: 500ms, 30s, 2m. An empty variable counts as unset. \
                  The log goes to standard error; RUST_LOG=debug shows more."
)]
pub struct Config {
    /// Address and port to listen on; :8080 is every address, IPv6 and IPv4; 8080 is that port of
    /// 127.0.0.1; port 0 is any free one
    #[arg(
        long,
        env = "PARLOUR_LISTEN",
        value_name = "ADDRESS:PORT",
        default_value = "127.0.0.1:8080"
    )]
    pub listen: String,

    /// Address and port of a second listener for GET /metrics, in Prometheus' format; without it
    /// there are no metrics
    #[arg(long, env = "PARLOUR_METRICS_LISTEN", value_name = "ADDRESS:PORT")]
    pub metrics_listen: Option<String>,

    /// Maximum number of clients; the default, and the upper bound, is what the system's limits
    /// allow
    #[arg(long, env = "PARLOUR_MAX_CONNECTIONS", value_name = "CONNECTIONS")]
    #[arg(value_parser = RangedU64ValueParser::<usize>::new().range(1..))]
    pub max_connections: Option<usize>,

    /// Maximum number of connections from one address, or from one /64 network of IPv6; this host's
    /// own don't count; 0 for no limit
    #[arg(
        long,
        env = "PARLOUR_MAX_CONNECTIONS_PER_IP",
        value_name = "CONNECTIONS",
        default_value = "64"
    )]
    pub max_connections_per_ip: usize,

    /// Joins a second that an address may ask for, after as many at once as it may have
    /// connections; counts what --max-connections-per-ip counts; 0 for no limit
    #[arg(long, env = "PARLOUR_JOIN_RATE", value_name = "JOINS", default_value = "5")]
    pub join_rate: u32,

    /// Network of proxies whose X-Forwarded-For names the client; several with commas or as several
    /// flags
    #[arg(long, env = "PARLOUR_TRUSTED_PROXY", value_name = "CIDR", value_delimiter = ',')]
    #[arg(value_parser = network)]
    pub trusted_proxy: Vec<IpNet>,

    /// Origins of pages on other sites that may chat here.
    #[arg(long, env = "PARLOUR_ALLOW_ORIGIN", value_name = "ORIGIN", value_delimiter = ',')]
    #[arg(value_parser = AllowedOrigin::parse)]
    #[arg(help = "Origin of pages on other sites that may chat here, like https://chat.example; \
                * for any; several as above")]
    pub allow_origin: Vec<AllowedOrigin>,

    /// Names, other than those of loopback, to which a listener on loopback answers.
    #[arg(long, env = "PARLOUR_ALLOW_HOST", value_name = "NAME", value_delimiter = ',')]
    #[arg(value_parser = AllowedHost::parse)]
    #[arg(
        help = "Name, apart from localhost, by which requests may ask a server that listens on \
                loopback alone, like chat.example; * for any; several as above"
    )]
    pub allow_host: Vec<AllowedHost>,

    /// Public messages that a room remembers and shows to a newcomer
    #[arg(long, env = "PARLOUR_HISTORY", value_name = "MESSAGES", default_value = "100")]
    #[arg(value_parser = RangedU64ValueParser::<usize>::new().range(0..=100_000))]
    pub history: usize,

    /// Bytes of messages that all rooms together remember; over this, the rooms with most forget
    /// the older half of theirs
    #[arg(long, env = "PARLOUR_HISTORY_BYTES", value_name = "BYTES", default_value = "67108864")]
    pub history_bytes: usize,

    /// Entries queued for a client that reads slowly before it is dropped with 1013
    #[arg(long, env = "PARLOUR_QUEUE", value_name = "ENTRIES", default_value = "256")]
    #[arg(value_parser = RangedU64ValueParser::<usize>::new().range(1..=65_536))]
    pub queue: usize,

    /// Bytes queued for a client that reads slowly before it is dropped with 1013; at least eight
    /// of the longest messages
    #[arg(long, env = "PARLOUR_QUEUE_BYTES", value_name = "BYTES", default_value = "4194304")]
    pub queue_bytes: u64,

    /// Longest content of a message, in bytes of UTF-8
    #[arg(long, env = "PARLOUR_MAX_MESSAGE_BYTES", value_name = "BYTES", default_value = "4096")]
    #[arg(value_parser = RangedU64ValueParser::<usize>::new().range(1..=1 << 20))]
    pub max_message_bytes: usize,

    /// Messages a second that are delivered for one client; what it sends faster waits, in order; 0
    /// for no limit
    #[arg(long, env = "PARLOUR_MESSAGE_RATE", value_name = "MESSAGES", default_value = "5")]
    pub message_rate: u32,

    /// Messages that a client may send at once after a pause, whatever --message-rate is
    #[arg(long, env = "PARLOUR_MESSAGE_BURST", value_name = "MESSAGES", default_value = "20")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub message_burst: u32,

    /// Maximum number of rooms, empty ones with their history included; the one empty longest gives
    /// way, or else one whose members are all disconnected
    #[arg(long, env = "PARLOUR_MAX_ROOMS", value_name = "ROOMS", default_value = "1000")]
    #[arg(value_parser = RangedU64ValueParser::<usize>::new().range(1..=1_000_000))]
    pub max_rooms: usize,

    /// Time between the pings sent to each client
    #[arg(long, env = "PARLOUR_PING_INTERVAL", value_name = "DURATION", default_value = "30s")]
    #[arg(value_parser = duration)]
    pub ping_interval: Duration,

    /// A client that sends nothing for this long is closed with 4408; must be longer than
    /// --ping-interval
    #[arg(long, env = "PARLOUR_PING_TIMEOUT", value_name = "DURATION", default_value = "75s")]
    #[arg(value_parser = duration)]
    pub ping_timeout: Duration,

    /// Time that a member whose connection broke has to come back before the room sees it leave; 0
    /// for none
    #[arg(long, env = "PARLOUR_LEAVE_GRACE", value_name = "DURATION", default_value = "5s")]
    #[arg(value_parser = duration_or_zero)]
    pub leave_grace: Duration,

    /// Time that a client has to send its whole request head
    #[arg(long, env = "PARLOUR_HANDSHAKE_TIMEOUT", value_name = "DURATION", default_value = "10s")]
    #[arg(value_parser = duration)]
    pub handshake_timeout: Duration,

    /// Time in which a client must take 4 KiB a second of what is written to it
    #[arg(long, env = "PARLOUR_WRITE_TIMEOUT", value_name = "DURATION", default_value = "10s")]
    #[arg(value_parser = duration)]
    pub write_timeout: Duration,

    /// Longest time between a stop signal and the end of the process
    #[arg(long, env = "PARLOUR_SHUTDOWN_TIMEOUT", value_name = "DURATION", default_value = "5s")]
    #[arg(value_parser = duration)]
    pub shutdown_timeout: Duration,

    /// Format of the log: text for people, json for a collector, one object a line
    #[arg(
        long,
        env = "PARLOUR_LOG_FORMAT",
        value_name = "FORMAT",
        default_value = "text",
        value_enum
    )]
    pub log_format: LogFormat,

    /// The options that were set by a variable, by the names of their flags.
    #[arg(skip)]
    pub from_environment: Vec<String>,
}

/// The format of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Lines for people, as env_logger formats them.
    Text,
    /// A JSON object a line: `ts` (milliseconds since 1970), `level`, `target` and `message`.
    Json,
}

impl Config {
    /// Reads the options from `args` (the program's name first) and the environment, and checks
    /// them.
    ///
    /// # Errors
    /// clap's message about a bad option, or about `--help` and `--version`, which are not
    /// failures.
    pub fn read<I, T>(args: I) -> Result<Config, clap::Error>
    where
        I: IntoIterator<Item = T>,
        T: Into<OsString> + Clone,
    {
        let mut args: Vec<OsString> = args.into_iter().map(Into::into).collect();
        let flags = parse(Config::command(), args.clone())?;
        let variables = variables_beside(&flags)?;
        // The flags are right, so an error is that of a variable.
        let program = args.len().min(1);
        args.splice(program..program, variables.iter().map(|(_, flag)| flag.into()));
        let matches = parse(Config::command(), args).map_err(name_variable)?;
        let mut config = Config::from_arg_matches(&matches)?;
        config.from_environment = variables.into_iter().map(|(name, _)| name).collect();
        config.check()?;
        Ok(config)
    }

    /// Checks that the options don't contradict each other.
    ///
    /// # Errors
    /// Names those that do.
    fn check(&self) -> Result<(), clap::Error> {
        if self.ping_timeout <= self.ping_interval {
            let problem = format!(
                "{}{} must be longer than {}{}, or clients that answer every ping are dropped",
                self.prefix("ping-timeout"),
                humantime::format_duration(self.ping_timeout),
                self.prefix("ping-interval"),
                humantime::format_duration(self.ping_interval),
            );
            return Err(Config::command().error(ErrorKind::ValueValidation, problem));
        }
        Ok(())
    }

    /// Returns what stands before the value of `option` where it was set, for errors: `--listen `,
    /// or `PARLOUR_LISTEN=`.
    pub fn prefix(&self, option: &str) -> String {
        if self.from_environment.iter().any(|name| name == option) {
            format!("{}=", variable(option))
        } else {
            format!("--{option} ")
        }
    }
}

/// Parses flags with `command`, without the environment: clap would take an empty variable for a
/// value, and would call a variable by the name of its flag.
///
/// # Errors
/// Those of [`Config::read`] that have to do with flags.
pub fn parse(command: Command, args: Vec<OsString>) -> Result<ArgMatches, clap::Error> {
    let args = tidy_lists(&command, args);
    let flags_only = command.clone().mut_args(|argument| argument.env(None));
    flags_only.try_get_matches_from(args.clone()).map_err(|error| match error.kind() {
        // The help names the variables.
        ErrorKind::DisplayHelp => command.try_get_matches_from(args).err().unwrap_or(error),
        _ => error,
    })
}

/// Removes spaces and empty items from the values of options that are lists.
fn tidy_lists(command: &Command, args: Vec<OsString>) -> Vec<OsString> {
    let lists = command.get_arguments().filter(|argument| is_list(argument));
    let lists: Vec<String> =
        lists.filter_map(Arg::get_long).map(|name| format!("--{name}")).collect();
    let mut value_follows = false;
    let tidied = args.into_iter().map(|arg| {
        let is_value = mem::take(&mut value_follows);
        let Some(text) = arg.to_str() else { return arg };
        match text.split_once('=') {
            _ if is_value => tidy_list(text).into(),
            Some((flag, value)) if lists.iter().any(|list| list == flag) => {
                format!("{flag}={}", tidy_list(value)).into()
            }
            _ => {
                value_follows = lists.iter().any(|list| list == text);
                arg
            }
        }
    });
    tidied.collect()
}

fn is_list(argument: &Arg) -> bool {
    argument.get_value_delimiter() == Some(LIST_DELIMITER)
}

fn tidy_list(text: &str) -> String {
    let items = text.split(LIST_DELIMITER).map(str::trim).filter(|item| !item.is_empty());
    items.collect::<Vec<_>>().join(&LIST_DELIMITER.to_string())
}

/// Returns the options that are set by a variable and not by a flag: the name of each, and the flag
/// that says the same. An empty variable sets nothing.
fn variables_beside(flags: &ArgMatches) -> Result<Vec<(String, String)>, clap::Error> {
    let mut variables = Vec::new();
    for argument in Config::command().get_arguments() {
        let (Some(option), Some(variable)) = (argument.get_long(), argument.get_env()) else {
            continue;
        };
        if flags.value_source(argument.get_id().as_str()) == Some(ValueSource::CommandLine) {
            continue;
        }
        let value = env::var_os(variable).unwrap_or_default().into_string().map_err(|_| {
            let problem = format!("{} is not valid UTF-8", variable.display());
            Config::command().error(ErrorKind::InvalidUtf8, problem)
        })?;
        let value = if is_list(argument) { tidy_list(&value) } else { value };
        if !value.trim().is_empty() {
            variables.push((option.to_owned(), format!("--{option}={value}")));
        }
    }
    Ok(variables)
}

/// Puts the name of the variable before that of the flag.
fn name_variable(mut error: clap::Error) -> clap::Error {
    if let Some(ContextValue::String(flag)) = error.get(ContextKind::InvalidArg) {
        // With the name of its value: `--queue <ENTRIES>`.
        let option = flag.split(' ').next().unwrap_or_default().trim_start_matches("--");
        let named = format!("{} ({flag})", variable(option));
        error.insert(ContextKind::InvalidArg, ContextValue::String(named));
    }
    error
}

/// Returns the variable of an option.
fn variable(option: &str) -> String {
    format!("{VARIABLE_PREFIX}{}", option.to_uppercase().replace('-', "_"))
}

/// Returns the variables that look like options and are none, each with the option's variable that
/// it resembles most.
pub fn unknown_variables() -> Vec<(String, Option<String>)> {
    let command = Config::command();
    let known = command.get_arguments().filter_map(|argument| argument.get_env()?.to_str());
    let known: Vec<&str> = known.collect();
    let set = env::vars_os().filter(|(_, value)| !value.is_empty());
    let names = set.map(|(name, _)| name.to_string_lossy().into_owned());
    let unknown =
        names.filter(|name| name.starts_with(VARIABLE_PREFIX) && !known.contains(&&**name));
    let with_nearest = unknown.map(|name| {
        let nearest = nearest(&name, &known).map(str::to_owned);
        (name, nearest)
    });
    with_nearest.collect()
}

/// Returns what resembles `name` most, if anything does.
fn nearest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    let own_part = |name: &str| name.trim_start_matches(VARIABLE_PREFIX).to_owned();
    let likeness = |known: &&'a str| (strsim::jaro(&own_part(name), &own_part(known)), *known);
    let rated = known.iter().map(likeness);
    let (likeness, nearest) = rated.max_by(|(one, _), (other, _)| one.total_cmp(other))?;
    (likeness > LIKENESS_MIN).then_some(nearest)
}

/// A value of `--allow-origin`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AllowedOrigin {
    /// Every origin, `*`.
    Any,
    /// This origin, as [`normal_origin`] returns it, or `null`.
    Only(String),
}

impl AllowedOrigin {
    /// Parses `*`, `null`, or an origin as a browser sends it.
    ///
    /// # Errors
    /// How to write it.
    pub fn parse(text: &str) -> Result<AllowedOrigin, String> {
        match text {
            "*" => Ok(AllowedOrigin::Any),
            NULL_ORIGIN => Ok(AllowedOrigin::Only(NULL_ORIGIN.to_owned())),
            text => normal_origin(text).map(AllowedOrigin::Only).ok_or_else(|| {
                "write it like https://chat.example, with its port, without a path".into()
            }),
        }
    }
}

/// What a browser sends for a page without an origin: a local file, a sandboxed frame.
pub const NULL_ORIGIN: &str = "null";

/// Returns an origin in lower case, without the port if that is the scheme's default. `None` if it
/// is not an origin.
pub fn normal_origin(origin: &str) -> Option<String> {
    let origin = origin.to_ascii_lowercase();
    let (scheme, rest) = origin.split_once("://")?;
    let (host, port) = match rest.rsplit_once(':') {
        // A colon within brackets is part of an IPv6 address.
        Some((host, port)) if !port.ends_with(']') => (host, port),
        _ => (rest, ""),
    };
    let in_scheme = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
    let in_host = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~[]:".contains(&byte);
    let valid = !scheme.is_empty()
        && scheme.bytes().all(in_scheme)
        && !host.is_empty()
        && host.bytes().all(in_host)
        && port.bytes().all(|byte| byte.is_ascii_digit());
    let default = match scheme {
        "http" => Some(80),
        "https" => Some(443),
        _ => None,
    };
    let port: Option<u16> = if port.is_empty() { None } else { Some(port.parse().ok()?) };
    match port.filter(|_| port != default) {
        _ if !valid => None,
        Some(port) => Some(format!("{scheme}://{host}:{port}")),
        None => Some(format!("{scheme}://{host}")),
    }
}

/// A value of `--allow-host`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AllowedHost {
    /// Every name, `*`.
    Any,
    /// This name, as [`normal_host`] returns it.
    Only(String),
}

impl AllowedHost {
    /// Parses `*`, a name, or an address.
    ///
    /// # Errors
    /// How to write it.
    pub fn parse(text: &str) -> Result<AllowedHost, String> {
        if text == "*" {
            return Ok(AllowedHost::Any);
        }
        let bracketed = text.parse::<Ipv6Addr>().map(|address| format!("[{address}]"));
        // No pattern is known.
        let name = normal_host(bracketed.as_deref().unwrap_or(text));
        name.filter(|name| !name.contains('*')).map(AllowedHost::Only).ok_or_else(|| {
            "write it like chat.example, without a port, and as browsers send it: \
             xn--bcher-kva.example"
                .into()
        })
    }
}

/// Returns the host of an address (RFC 3986, 3.2.2) in lower case and without a final dot. `None`
/// if it is not one.
pub fn normal_host(host: &str) -> Option<String> {
    if let Some(address) = host.strip_prefix('[') {
        let address: Ipv6Addr = address.strip_suffix(']')?.parse().ok()?;
        return Some(format!("[{address}]"));
    }
    let mut bytes = host.bytes();
    while let Some(byte) = bytes.next() {
        let valid = match byte {
            b'%' => [bytes.next(), bytes.next()]
                .iter()
                .all(|digit| digit.is_some_and(|digit| digit.is_ascii_hexdigit())),
            _ => byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=".contains(&byte),
        };
        if !valid {
            return None;
        }
    }
    let name = host.strip_suffix('.').unwrap_or(host);
    if name.is_empty() { None } else { Some(name.to_ascii_lowercase()) }
}

/// Parses a network, or one address.
fn network(text: &str) -> Result<IpNet, String> {
    let network = text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    match network.map_err(|_| "write it like 10.0.0.0/8, fd00::/8 or 127.0.0.1")? {
        // Clients that connect by IPv4 are known by their IPv4 address, whatever the listener.
        IpNet::V6(network) if network.addr().to_ipv4_mapped().is_some() => {
            Err("write it as IPv4".into())
        }
        network => Ok(network),
    }
}

/// Parses a duration that is not zero.
fn duration(text: &str) -> Result<Duration, String> {
    match duration_or_zero(text)? {
        Duration::ZERO => Err("it must be longer than zero".into()),
        duration => Ok(duration),
    }
}

/// Parses a duration of up to [`DURATION_MAX`].
fn duration_or_zero(text: &str) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text)
        .map_err(|error| format!("{error}; write it like 500ms, 30s or 2m"))?;
    if duration > DURATION_MAX {
        return Err("it must not be longer than 365 days".into());
    }
    Ok(duration)
}
