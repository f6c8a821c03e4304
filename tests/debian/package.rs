//! The package that `make deb` builds: systemd accepts its unit, and its files fit each other.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use parlour::cli::{PROGRAM, USAGE};
use parlour::config::Config;
use parlour::protocol::address::Address;

const UNIT: &str = include_str!("../../src/debian/parlour.service");
const SOCKET: &str = include_str!("../../src/debian/sockets/parlour-http.socket");
const MANIFEST: &str = include_str!("../../Cargo.toml");
/// Set where a missing systemd-analyze is a failure, not a reason to skip.
const REQUIRED: &str = "PARLOUR_REQUIRE_SYSTEMD";
/// How much `systemd-analyze security` may find exposed, in tenths of its scale from 0 to 10. What
/// is left is the network, which a server needs.
const EXPOSURE_MAX: &str = "--threshold=12";

/// The values of the lines for `key` in the unit, at least one.
fn settings(key: &str) -> Vec<&'static str> {
    let values = UNIT.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    let values: Vec<&str> = values.collect();
    assert!(!values.is_empty(), "no {key}= in the unit");
    values
}

fn setting(key: &str) -> &'static str {
    settings(key)[0]
}

#[test]
fn systemd_accepts_the_unit_and_finds_little_exposed() {
    let folder = std::env::temp_dir().join(format!("parlour-unit-{}", std::process::id()));
    fs::create_dir_all(&folder).expect("a folder");
    let unit = folder.join("parlour.service");
    // The unit is verified with a program that exists.
    fs::write(&unit, UNIT.replace(setting("ExecStart"), env!("CARGO_BIN_EXE_parlour"))).unwrap();
    let socket = folder.join("parlour-http.socket");
    fs::write(&socket, SOCKET).unwrap();
    let analyze =
        |arguments: &[&str]| Command::new("systemd-analyze").args(arguments).arg(&unit).output();
    match analyze(&["verify", "--man=no", &socket.to_string_lossy()]) {
        Ok(verified) => {
            // For an unknown setting there is only a warning.
            assert!(
                verified.status.success() && verified.stderr.is_empty(),
                "{}",
                output_of(&verified)
            );
            let judged =
                analyze(&["security", "--offline=true", EXPOSURE_MAX]).expect("it ran before");
            assert!(judged.status.success(), "{}", output_of(&judged));
        }
        Err(error) if std::env::var_os(REQUIRED).is_none() => {
            eprintln!(
                "LEFT OUT: systemd-analyze, of Debian's package systemd, is not here: {error}"
            );
        }
        Err(error) => panic!("systemd-analyze: {error}"),
    }
    fs::remove_dir_all(&folder).expect("the folder that was made");
}

fn output_of(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn the_unit_the_package_and_the_defaults_agree() {
    let program = setting("ExecStart").trim_start_matches('/');
    let (folder, _) = program.split_once("parlour").expect("the program's name");
    assert!(
        MANIFEST.contains(&format!("[\"target/release/parlour\", \"{folder}\", \"755\"]")),
        "{program}"
    );
    let defaults = setting("EnvironmentFile").trim_start_matches('-');
    assert!(MANIFEST.contains(&format!("conf-files = [\"{defaults}\"]")), "{defaults}");
    let asset = format!(
        "[\"src/debian/parlour.default\", \"{}\", \"644\"]",
        defaults.trim_start_matches('/')
    );
    assert!(MANIFEST.contains(&asset), "{asset}");
    // systemd kills a service that has not stopped by then.
    let stop = humantime::parse_duration(setting("TimeoutStopSec")).expect("a duration");
    let config = Config::read(["parlour"]).expect("defaults go together");
    assert!(stop > config.shutdown_timeout, "{stop:?}");
    // The limits are read from files of /proc that this setting would hide.
    assert!(!UNIT.lines().any(|line| line.starts_with("ProcSubset=")));
}

#[test]
fn systemd_starts_it_until_its_address_exists_and_not_after_a_wrong_option() {
    let (start, _) = UNIT.split_once("[Service]").expect("a section");
    assert!(start.contains("\nStartLimitIntervalSec=0\n"));
    assert_eq!(setting("Restart"), "on-failure");
    assert_eq!(setting("RestartPreventExitStatus"), USAGE.to_string());
}

#[test]
fn the_socket_is_the_service_s_and_stays_off_until_an_owner_enables_it() {
    let value = |key: &str| {
        let mut values =
            SOCKET.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        values.next().unwrap_or_else(|| panic!("no {key}= in the socket"))
    };
    assert_eq!(value("Service"), "parlour.service");
    let listen = Config::read([PROGRAM]).expect("defaults go together").listen;
    assert_eq!(Address::parse_listen(value("ListenStream")), Address::parse_listen(&listen));
    assert_eq!(value("FreeBind"), "yes");
    let unit = "unit-name = \"parlour-http\", enable = false, start = false";
    assert!(MANIFEST.contains(unit), "{unit}");
}

#[test]
fn the_documentation_that_the_unit_names_is_in_the_package() {
    for address in settings("Documentation") {
        let path = address.strip_prefix("file:///").expect("a file of the package");
        let (folder, file) = path.rsplit_once('/').expect("a folder");
        let source = folder.strip_prefix("usr/share/doc/parlour").expect("the package's folder");
        let source = format!("{source}/{file}").trim_start_matches('/').to_owned();
        assert!(Path::new(env!("CARGO_MANIFEST_DIR")).join(&source).exists(), "{source}");
        let every_chapter = source.replace(file, "*.md");
        let packed = [source, every_chapter]
            .iter()
            .any(|source| MANIFEST.contains(&format!("[\"{source}\", \"{folder}/\", \"644\"]")));
        assert!(packed, "{path}");
    }
}
