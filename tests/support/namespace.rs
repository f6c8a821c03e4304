//! Networks that a test has for itself. Only root can make them.

use std::process::Command;

use super::is_root;

/// Set in a process that has a network of its own.
const IN_NAMESPACE: &str = "PARLOUR_TEST_IN_NAMESPACE";

/// Runs `test`, the body of a test function, in a process whose network has nothing but itself.
/// That process is this binary again, with no other test.
pub fn in_own_network<Test: FnOnce()>(test: Test) {
    if std::env::var_os(IN_NAMESPACE).is_some() {
        ip("link set lo up");
        return test();
    }
    if is_root("a network namespace") {
        let own = std::env::current_exe().expect("this test");
        let mut unshare = Command::new("unshare");
        unshare.arg("--net").arg(own).args(["--exact", test_name::<Test>(), "--nocapture"]);
        let output = unshare.env(IN_NAMESPACE, "1").output().expect("unshare, of util-linux");
        let printed = [output.stdout, output.stderr].concat();
        let printed = String::from_utf8_lossy(&printed);
        assert!(output.status.success() && printed.contains("1 passed"), "{printed}");
    }
}

/// Returns the full name of the test function whose body is the closure `Test`.
///
/// The thread's name would do too, but with `--test-threads=1` all tests run in the main thread.
fn test_name<Test>() -> &'static str {
    let closure = std::any::type_name::<Test>();
    let path = closure.strip_suffix("::{{closure}}").expect("a closure");
    path.split_once("::").expect("a path that begins with the crate").1
}

/// Runs `ip` with `arguments` in this process's network.
pub fn ip(arguments: &str) {
    run(Command::new("ip").args(arguments.split(' ')));
}

/// Runs `ip` with `arguments` in the network of process `id`.
pub fn ip_of(id: u32, arguments: &str) {
    let target = format!("--target={id}");
    run(Command::new("nsenter").args(["--net", &target, "ip"]).args(arguments.split(' ')));
}

fn run(command: &mut Command) {
    let status = command.status().expect("ip, of iproute2, and nsenter, of util-linux");
    assert!(status.success(), "{command:?}");
}
