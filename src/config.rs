//! The server's options: flags override the environment, which overrides the defaults.
//!
//! They are checked once, at start. This file imports nothing else of parlour.

use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use clap::builder::RangedU64ValueParser;
use clap::{CommandFactory, Parser, ValueEnum};
use ipnet::IpNet;

/// Longest duration of an option. Deadlines are computed by adding it to the clock, which must not
/// overflow.
const DURATION_MAX: Duration = Duration::from_secs(365 * 24 * 3600);

/// Every option of the server. Each flag is also an environment variable, `PARLOUR_` and its name.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "parlour",
    version,
    after_help = "Durations have a unit: 500ms, 30s, 2m. The log goes to standard error; \
                  RUST_LOG=debug shows more."
)]
pub struct Config {
    /// Address and port to listen on; `[::]:8080` accepts IPv6 and IPv4, port 0 is any free one.
    #[arg(
        long,
        env = "PARLOUR_LISTEN",
        value_name = "ADDRESS:PORT",
        default_value = "127.0.0.1:8080"
    )]
    #[arg(
        help = "Address and port to listen on; [::]:8080 accepts IPv6 and IPv4, port 0 is any free one"
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

    /// Maximum number of connections from one address (IPv6: one /64); this host's own don't count;
    /// 0 for no limit
    #[arg(
        long,
        env = "PARLOUR_MAX_CONNECTIONS_PER_IP",
        value_name = "CONNECTIONS",
        default_value = "64"
    )]
    pub max_connections_per_ip: usize,

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

    /// Messages a second that a client may send, pings included, a thousand fragments counting as
    /// one; a client that sends more is read more slowly; 0 for no limit
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

    /// Time that a client has to take what is being written to it
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
        T: Into<std::ffi::OsString> + Clone,
    {
        let config = Config::try_parse_from(args)?;
        config.check()?;
        Ok(config)
    }

    /// Checks that the options don't contradict each other.
    ///
    /// # Errors
    /// Names those that do.
    pub fn check(&self) -> Result<(), clap::Error> {
        if self.ping_timeout <= self.ping_interval {
            let problem = format!(
                "--ping-timeout ({}) must be longer than --ping-interval ({}), or clients that \
                 answer every ping are dropped",
                humantime::format_duration(self.ping_timeout),
                humantime::format_duration(self.ping_interval),
            );
            return Err(Config::command().error(clap::error::ErrorKind::ValueValidation, problem));
        }
        Ok(())
    }
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
