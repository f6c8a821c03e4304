//! The options: flags over environment over defaults, checked once at start.

use std::net::IpAddr;
use std::time::Duration;

use clap::builder::RangedU64ValueParser;
use clap::{CommandFactory, Parser, ValueEnum};
use ipnet::IpNet;

use crate::chat::room::PENDING_BYTES_MAX;
use crate::http::origin::Allowed;
use crate::protocol::message::frame_bytes_max;

/// Longest duration an option takes: deadlines are computed by adding it to the clock, which must not overflow.
const DURATION_MAX: Duration = Duration::from_secs(365 * 24 * 3600);

/// Longest messages for which a queue has room, whatever `--queue-bytes` is.
const QUEUE_MESSAGES_MIN: u64 = 8;

/// Everything that can be set. Each flag is also an environment variable, `PARLOUR_` and its name.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "parlour",
    version,
    after_help = "Durations take a unit: 500ms, 30s, 2m. The log goes to standard error; RUST_LOG=debug shows more."
)]
pub struct Config {
    /// Address and port to listen on.
    #[arg(
        long,
        env = "PARLOUR_LISTEN",
        value_name = "ADDRESS:PORT",
        default_value = "127.0.0.1:8080"
    )]
    #[arg(
        help = "Address and port to listen on; [::]:8080 takes IPv6 and IPv4, port 0 any free one"
    )]
    pub listen: String,

    /// Address and port of a second listener for GET /metrics, in Prometheus' format; without it there are no metrics
    #[arg(long, env = "PARLOUR_METRICS_LISTEN", value_name = "ADDRESS:PORT")]
    pub metrics_listen: Option<String>,

    /// Clients of the chat at most; by default, and at most, as many as the system's limits allow
    #[arg(long, env = "PARLOUR_MAX_CONNECTIONS", value_name = "CONNECTIONS")]
    #[arg(value_parser = RangedU64ValueParser::<usize>::new().range(1..))]
    pub max_connections: Option<usize>,

    /// Connections at most from one address, which of IPv6 is a /64; this host's own don't count; 0 for no limit
    #[arg(
        long,
        env = "PARLOUR_MAX_CONNECTIONS_PER_IP",
        value_name = "CONNECTIONS",
        default_value = "64"
    )]
    pub max_connections_per_ip: usize,

    /// Network of proxies whose X-Forwarded-For names the client; several with commas or as several flags
    #[arg(long, env = "PARLOUR_TRUSTED_PROXY", value_name = "CIDR", value_delimiter = ',', value_parser = network)]
    pub trusted_proxy: Vec<IpNet>,

    /// Origins of pages elsewhere that may chat here.
    #[arg(long, env = "PARLOUR_ALLOW_ORIGIN", value_name = "ORIGIN", value_delimiter = ',')]
    #[arg(value_parser = Allowed::parse)]
    #[arg(
        help = "Origin of pages elsewhere that may chat here, like https://chat.example; * for any; several as above"
    )]
    pub allow_origin: Vec<Allowed>,

    /// Public messages a room remembers and shows to a newcomer
    #[arg(long, env = "PARLOUR_HISTORY", value_name = "MESSAGES", default_value = "100")]
    #[arg(value_parser = RangedU64ValueParser::<usize>::new().range(0..=100_000))]
    pub history: usize,

    /// Bytes that all rooms together remember; beyond, those with most forget the older half of their messages
    #[arg(long, env = "PARLOUR_HISTORY_BYTES", value_name = "BYTES", default_value = "67108864")]
    pub history_bytes: usize,

    /// Entries queued for a client that reads slowly, before it is dropped with 1013
    #[arg(long, env = "PARLOUR_QUEUE", value_name = "ENTRIES", default_value = "256")]
    #[arg(value_parser = RangedU64ValueParser::<usize>::new().range(1..=65_536))]
    pub queue: usize,

    /// Bytes queued for a client that reads slowly, before it is dropped with 1013; at least eight of the longest messages
    #[arg(long, env = "PARLOUR_QUEUE_BYTES", value_name = "BYTES", default_value = "4194304")]
    pub queue_bytes: u64,

    /// Longest content of a message, in bytes of UTF-8
    #[arg(long, env = "PARLOUR_MAX_MESSAGE_BYTES", value_name = "BYTES", default_value = "4096")]
    #[arg(value_parser = RangedU64ValueParser::<usize>::new().range(1..=1 << 20))]
    pub max_message_bytes: usize,

    /// Messages a second that a client may send, pings included, a thousand fragments counting as one; one that sends more is
    /// read more slowly; 0 for no limit
    #[arg(long, env = "PARLOUR_MESSAGE_RATE", value_name = "MESSAGES", default_value = "5")]
    pub message_rate: u32,

    /// Messages that a client which was quiet may send at once, beyond --message-rate
    #[arg(long, env = "PARLOUR_MESSAGE_BURST", value_name = "MESSAGES", default_value = "20")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub message_burst: u32,

    /// Rooms kept, empty ones with their history included; the one empty longest gives way, or else one of absent members
    #[arg(long, env = "PARLOUR_MAX_ROOMS", value_name = "ROOMS", default_value = "1000")]
    #[arg(value_parser = RangedU64ValueParser::<usize>::new().range(1..=1_000_000))]
    pub max_rooms: usize,

    /// Time between the pings sent to each client
    #[arg(long, env = "PARLOUR_PING_INTERVAL", value_name = "DURATION", default_value = "30s")]
    #[arg(value_parser = duration)]
    pub ping_interval: Duration,

    /// A client is closed with 4408 when nothing came from it for this long; longer than --ping-interval
    #[arg(long, env = "PARLOUR_PING_TIMEOUT", value_name = "DURATION", default_value = "75s")]
    #[arg(value_parser = duration)]
    pub ping_timeout: Duration,

    /// Time that a member whose connection broke has to come back before the room sees it leave; 0 for none
    #[arg(long, env = "PARLOUR_LEAVE_GRACE", value_name = "DURATION", default_value = "5s")]
    #[arg(value_parser = duration_or_zero)]
    pub leave_grace: Duration,

    /// Time a client has to send its whole request head
    #[arg(long, env = "PARLOUR_HANDSHAKE_TIMEOUT", value_name = "DURATION", default_value = "10s")]
    #[arg(value_parser = duration)]
    pub handshake_timeout: Duration,

    /// Time a client has to take what is being written to it
    #[arg(long, env = "PARLOUR_WRITE_TIMEOUT", value_name = "DURATION", default_value = "10s")]
    #[arg(value_parser = duration)]
    pub write_timeout: Duration,

    /// Time between a stop signal and the end of the process, at most
    #[arg(long, env = "PARLOUR_SHUTDOWN_TIMEOUT", value_name = "DURATION", default_value = "5s")]
    #[arg(value_parser = duration)]
    pub shutdown_timeout: Duration,

    /// How lines of the log look: text for people, json for a collector, one object a line
    #[arg(
        long,
        env = "PARLOUR_LOG_FORMAT",
        value_name = "FORMAT",
        default_value = "text",
        value_enum
    )]
    pub log_format: LogFormat,
}

/// How a line of the log looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// A JSON object with `ts` (milliseconds since 1970), `level`, `target` and `message`.
    Json,
}

impl Config {
    /// Bytes queued for a client at most: `--queue-bytes`, or what a burst of the longest messages takes if that is more, since
    /// nobody can have read that meanwhile.
    pub fn queue_bytes_max(&self) -> u64 {
        let longest = frame_bytes_max(self.max_message_bytes).max(PENDING_BYTES_MAX);
        self.queue_bytes.max(QUEUE_MESSAGES_MIN * longest as u64)
    }

    /// Reads the options from `args` (the program's name first) and the environment, and checks that they go together.
    ///
    /// # Errors
    /// What clap says of a bad option, and of `--help` and `--version`, which are no failures.
    pub fn read<I, T>(args: I) -> Result<Config, clap::Error>
    where
        I: IntoIterator<Item = T>,
        T: Into<std::ffi::OsString> + Clone,
    {
        let config = Config::try_parse_from(args)?;
        config.check()?;
        Ok(config)
    }

    /// Checks that the options go together.
    ///
    /// # Errors
    /// Says which don't.
    pub fn check(&self) -> Result<(), clap::Error> {
        if self.ping_timeout <= self.ping_interval {
            let problem = format!(
                "--ping-timeout ({}) must be longer than --ping-interval ({}), or clients that answer every ping are dropped",
                humantime::format_duration(self.ping_timeout),
                humantime::format_duration(self.ping_interval),
            );
            return Err(Config::command().error(clap::error::ErrorKind::ValueValidation, problem));
        }
        Ok(())
    }
}

/// A network, or one address.
fn network(text: &str) -> Result<IpNet, String> {
    let network = text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    match network.map_err(|_| "write it like 10.0.0.0/8, fd00::/8 or 127.0.0.1")? {
        // Clients that come by IPv4 are known by their IPv4 address, whatever the listener.
        IpNet::V6(network) if network.addr().to_ipv4_mapped().is_some() => {
            Err("write it as IPv4".into())
        }
        network => Ok(network),
    }
}

/// A duration that is not zero.
fn duration(text: &str) -> Result<Duration, String> {
    match duration_or_zero(text)? {
        Duration::ZERO => Err("it must be longer than zero".into()),
        duration => Ok(duration),
    }
}

/// A duration that is not so long that a deadline would overflow.
fn duration_or_zero(text: &str) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text)
        .map_err(|error| format!("{error}; write it like 500ms, 30s or 2m"))?;
    match duration > DURATION_MAX {
        true => Err("it must be at most 365 days".into()),
        false => Ok(duration),
    }
}
