//! The scripts that a newcomer runs first, on machines that lack something. Nothing is installed: every
//! program that they call is a stand-in.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test: its failures are panics")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

use tempfile::TempDir;

/// Held while a program is written and while one is started: a process that is born in between has the program open for
/// writing, and then nobody can run it (ETXTBSY).
static WRITING: Mutex<()> = Mutex::new(());

/// A machine on whose `PATH` only stand-ins are.
struct Machine(TempDir);

impl Machine {
    fn new(user: &str) -> Self {
        let machine = Self(TempDir::new().unwrap());
        machine.program("id", &format!("echo {user}"));
        machine
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn program(&self, name: &str, script: &str) -> &Self {
        let path = self.path(name);
        let _alone = WRITING.lock().unwrap_or_else(PoisonError::into_inner);
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        self
    }

    /// Whether `install-redis.sh` succeeds, and what it says.
    fn install_redis(&self) -> (bool, String) {
        let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
        let mut command = Command::new("/bin/bash");
        command
            .arg(format!("{root}/scripts/install-redis.sh"))
            .env_clear()
            .env("PATH", self.0.path())
            .env("POLICY_RC_D", self.path("policy-rc.d"))
            .env("CALLS", self.path("calls"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let child = {
            let _alone = WRITING.lock().unwrap_or_else(PoisonError::into_inner);
            command.spawn().unwrap()
        };
        let output = child.wait_with_output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8(text).unwrap())
    }
}

#[test]
fn only_a_server_that_the_tests_can_use_is_taken() {
    for (version, good) in [
        (
            "Redis server v=6.2.0 sha=00000000:0 malloc=libc bits=64",
            true,
        ),
        ("Redis server v=7.0.15 sha=00000000:0", true),
        ("Redis server v=10.0.1 sha=00000000:0", true),
        ("Valkey server v=8.1.3 sha=00000000:0", true),
        ("Redis server v=6.0.16 sha=00000000:0", false),
        ("Redis server v=5.0.14 sha=00000000:0", false),
        ("who knows", false),
    ] {
        let machine = Machine::new("1000");
        machine.program("redis-server", &format!("echo '{version}'"));
        let (installed, said) = machine.install_redis();
        assert_eq!(installed, good, "{version}: {said}");
        assert!(good || said.contains("6.2 or later"), "{version}: {said}");
    }
    let machine = Machine::new("1000");
    machine.program("valkey-server", "exit 1");
    assert!(machine.install_redis().0, "any version of Valkey");
}

#[test]
fn what_is_missing_is_said() {
    let machine = Machine::new("1000");
    let (installed, said) = machine.install_redis();
    assert!(!installed && said.contains("apt-get nor brew"), "{said}");

    machine.program("apt-get", "echo apt-get >>$CALLS");
    let (installed, said) = machine.install_redis();
    assert!(!installed && said.contains("Run this as root"), "{said}");
    assert!(!machine.path("calls").exists(), "apt-get was called");
}

/// The file that keeps Debian from starting a server goes, also when writing it fails half-way.
#[test]
fn a_failed_installation_leaves_no_policy_behind() {
    for failing in ["tee", "chmod", "apt-get"] {
        let machine = Machine::new("1000");
        machine.program("apt-get", "");
        // Writes and removes the file of this test whatever it is told, and fails at the named program.
        let sudo = format!(
            r#"echo "$@" >>"$CALLS"
            [ "$1" != tee ] || {{ while read -r line; do :; done; echo "a policy" >"$POLICY_RC_D"; }}
            [ "$1" != rm ] || /bin/rm -f "$POLICY_RC_D"
            [ "$1" != {failing} ]"#
        );
        machine.program("sudo", &sudo);
        let (installed, said) = machine.install_redis();
        let calls = fs::read_to_string(machine.path("calls")).unwrap();
        assert!(!installed, "{said}");
        assert!(calls.contains("tee "), "{calls}");
        assert!(calls.contains(failing), "{calls}");
        assert!(!machine.path("policy-rc.d").exists(), "{failing}: {calls}");
    }
}

/// GNU's extensions of basic regular expressions mean something else elsewhere.
#[test]
fn the_scripts_are_portable() {
    let scripts = concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts");
    for entry in fs::read_dir(scripts).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "sh") {
            // No shell reads it.
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        for (extension, instead) in [(r"\|", "grep -E"), (r"\b", "grep -w"), (r"\+", r"\{1,\}")] {
            assert!(
                !text.contains(extension),
                "{path:?}: {extension}, use {instead}"
            );
        }
    }
}
