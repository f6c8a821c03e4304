//! The service that `make deb` packs: what systemd makes of its unit, and that its files name each
//! other.

use std::fs;
use std::process::{Command, Output};

use parlour::config::Config;

const UNIT: &str = include_str!("../../src/debian/parlour.service");
const MANIFEST: &str = include_str!("../../Cargo.toml");
/// Set where a missing systemd-analyze is a failure and no reason to skip.
const REQUIRED: &str = "PARLOUR_REQUIRE_SYSTEMD";
/// Of 100, what `systemd-analyze security` may find exposed. What is left is the network, which a
/// server needs.
const EXPOSURE_MAX: &str = "--threshold=12";

/// The value of the unit's line for `key`.
fn setting(key: &str) -> &'static str {
    let mut values = UNIT.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    values.next().unwrap_or_else(|| panic!("no {key}= in the unit"))
}

#[test]
fn systemd_takes_the_unit_and_finds_little_exposed() {
    let folder = std::env::temp_dir().join(format!("parlour-unit-{}", std::process::id()));
    fs::create_dir_all(&folder).expect("a folder");
    let unit = folder.join("parlour.service");
    // It is verified with a program that is there.
    fs::write(&unit, UNIT.replace(setting("ExecStart"), env!("CARGO_BIN_EXE_parlour"))).unwrap();
    let analyze =
        |arguments: &[&str]| Command::new("systemd-analyze").args(arguments).arg(&unit).output();
    match analyze(&["verify", "--man=no"]) {
        Ok(verified) => {
            // An unknown setting is a warning only.
            assert!(verified.status.success() && verified.stderr.is_empty(), "{}", said(&verified));
            let judged =
                analyze(&["security", "--offline=true", EXPOSURE_MAX]).expect("it ran before");
            assert!(judged.status.success(), "{}", said(&judged));
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

fn said(output: &Output) -> String {
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
    // systemd kills what has not stopped by then.
    let stop = humantime::parse_duration(setting("TimeoutStopSec")).expect("a duration");
    let config = Config::read(["parlour"]).expect("defaults go together");
    assert!(stop > config.shutdown_timeout, "{stop:?}");
    // What the limits are read from must be in sight.
    assert!(!UNIT.lines().any(|line| line.starts_with("ProcSubset=")));
}
