//! Networks that a test has for itself, made by root.

use std::process::Command;

use super::is_root;

/// Set in a process that has a network of its own.
const IN_NAMESPACE: &str = "PARLOUR_TEST_IN_NAMESPACE";

/// Runs `test`, whose full name is `name`, in a process whose network has nothing but itself.
pub fn in_own_network(name: &str, test: impl FnOnce()) {
    if std::env::var_os(IN_NAMESPACE).is_some() {
        ip("link set lo up");
        return test();
    }
    if is_root("a network namespace") {
        let own = std::env::current_exe().expect("this test");
        let mut unshare = Command::new("unshare");
        unshare.arg("--net").arg(own).args(["--exact", name, "--nocapture"]).env(IN_NAMESPACE, "1");
        let output = unshare.output().expect("unshare, of util-linux");
        let told = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(output.status.success() && told.contains("1 passed"), "{told}");
    }
}

/// Configures this process's own network.
pub fn ip(arguments: &str) {
    run(Command::new("ip").args(arguments.split(' ')));
}

/// Configures the network of process `id`.
pub fn ip_of(id: u32, arguments: &str) {
    let target = format!("--target={id}");
    run(Command::new("nsenter").args(["--net", &target, "ip"]).args(arguments.split(' ')));
}

fn run(command: &mut Command) {
    let status = command.status().expect("ip, of iproute2, and nsenter, of util-linux");
    assert!(status.success(), "{command:?}");
}
