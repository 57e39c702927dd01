//! The Debian package that `cargo xtask dist` made, unpacked: who may do what with which file, and
//! whether its parts agree.

use std::{
    collections::BTreeSet,
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use flowd_tests::skip;
use tempfile::TempDir;

/// The oldest library that programs run on: RHEL 9's; Ubuntu 22.04 has 2.35, Debian 12 2.36.
const GLIBC: (u32, u32) = (2, 34);
/// Ten times what `systemd-analyze security` may say of the daemon.
const EXPOSURE: &str = "15";
const UNITS: [&str; 4] =
    ["flowd.service", "flowd.socket", "flowd-names.service", "flowd-names.path"];
/// What systemd and dpkg have, of the programs in units.
const OF_OTHERS: [&str; 2] = ["/usr/bin/nsenter", "/bin/kill"];

/// The package and what is in it.
struct Package {
    deb: PathBuf,
    dir: TempDir,
}

impl Package {
    /// `None`: there is none here.
    fn unpacked() -> Option<Self> {
        let deb = PathBuf::from(env::var_os("FLOWD_DEB")?);
        let dir = tempfile::tempdir().expect("a directory");
        let package = Self { deb, dir };
        run(Command::new("dpkg-deb").arg("-x").arg(&package.deb).arg(package.root()));
        run(Command::new("dpkg-deb").arg("-e").arg(&package.deb).arg(package.control()));
        Some(package)
    }

    fn root(&self) -> PathBuf {
        self.dir.path().join("root")
    }

    fn control(&self) -> PathBuf {
        self.dir.path().join("control")
    }

    fn text(&self, path: &str) -> String {
        fs::read_to_string(self.root().join(path.trim_start_matches('/')))
            .unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    fn unit(&self, name: &str) -> String {
        self.text(&format!("usr/lib/systemd/system/{name}"))
    }

    /// Mode, owner and path of everything, as `dpkg-deb -c` tells.
    fn list(&self) -> Vec<(String, String, String)> {
        let list = run(Command::new("dpkg-deb").arg("-c").arg(&self.deb));
        let entry = |line: &str| {
            let words: Vec<_> = line.split_whitespace().map(str::to_owned).collect();
            let [mode, owner, _bytes, _date, _time, path] = words.as_slice() else {
                panic!("odd line: {line}");
            };
            (mode.clone(), owner.clone(), path.clone())
        };
        list.lines().map(entry).collect()
    }
}

/// What a program printed; failure is a panic that shows it.
fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {stderr}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The values of a key, in any section of a unit.
fn values<'a>(unit: &'a str, key: &str) -> Vec<&'a str> {
    let value = |line: &'a str| line.strip_prefix(key)?.strip_prefix('=');
    unit.lines().filter_map(value).collect()
}

macro_rules! package {
    () => {
        match Package::unpacked() {
            Some(package) => package,
            None => skip!("there is no package: set FLOWD_DEB"),
        }
    };
}

#[test]
fn everything_is_roots_and_only_programs_are_executable() {
    let package = package!();
    let list = package.list();
    for (mode, owner, path) in &list {
        assert_eq!(owner, "0/0", "{path}");
        let expected = match path.as_str() {
            path if path.ends_with('/') => "drwxr-xr-x",
            "./usr/sbin/flowd" | "./usr/bin/flowctl" => "-rwxr-xr-x",
            _ => "-rw-r--r--",
        };
        assert_eq!(mode, expected, "{path}");
    }
    let paths: BTreeSet<_> = list.iter().map(|(_, _, path)| path.as_str()).collect();
    for path in [
        "./usr/sbin/flowd",
        "./usr/bin/flowctl",
        "./etc/flowd/flowd.toml",
        "./usr/lib/sysusers.d/flowd.conf",
        "./usr/lib/tmpfiles.d/flowd.conf",
        "./usr/share/man/man8/flowd.8.gz",
        "./usr/share/man/man8/flowd-detach.8.gz",
        "./usr/share/man/man1/flowctl.1.gz",
        "./usr/share/man/man1/flowctl-policy-apply.1.gz",
        "./usr/share/bash-completion/completions/flowctl",
        "./usr/share/zsh/vendor-completions/_flowctl",
        "./usr/share/fish/vendor_completions.d/flowctl.fish",
        "./usr/share/doc/flowd/copyright",
        "./usr/share/doc/flowd/third-party-licences.gz",
        "./usr/share/doc/flowd/changelog.gz",
        "./usr/share/doc/flowd/changelog.Debian.gz",
        "./usr/share/doc/flowd/examples/policy.toml",
    ] {
        assert!(paths.contains(path), "{path} is missing");
    }
    let policies: Vec<_> = paths.iter().filter(|path| path.ends_with("/policy.toml")).collect();
    assert_eq!(policies, [&"./usr/share/doc/flowd/examples/policy.toml"], "none is in force");
}

#[test]
fn the_configuration_is_kept_and_scripts_are_sound() {
    let package = package!();
    let control =
        |name: &str| fs::read_to_string(package.control().join(name)).expect("it is there");
    assert_eq!(control("conffiles").trim(), "/etc/flowd/flowd.toml");
    for script in ["postinst", "prerm", "postrm"] {
        run(Command::new("sh").arg("-n").arg(package.control().join(script)));
        assert!(control(script).contains("set -e"), "{script} ends at the first error");
    }
    let copyright = package.text("usr/share/doc/flowd/copyright");
    for named in ["wireguard-control", "LGPL-2.1-or-later", "aya-ebpf", "tokio", "rusqlite"] {
        assert!(copyright.contains(named), "{named}");
    }
}

#[test]
fn programs_run_on_the_libraries_that_the_package_depends_on() {
    let package = package!();
    for program in ["usr/sbin/flowd", "usr/bin/flowctl"] {
        let path = package.root().join(program);
        let dynamic = run(Command::new("readelf").args(["-W", "-d"]).arg(&path));
        let needed: BTreeSet<_> = dynamic
            .lines()
            .filter(|line| line.contains("(NEEDED)"))
            .filter_map(|line| Some(line.split_once('[')?.1.trim_end_matches(']').to_owned()))
            .collect();
        let expected = ["ld-linux-x86-64.so.2", "libc.so.6", "libgcc_s.so.1", "libm.so.6"];
        let expected: BTreeSet<_> = expected.map(str::to_owned).into();
        assert!(needed.contains("libc.so.6"), "{program} needs {needed:?}");
        assert!(needed.is_subset(&expected), "{program} needs {needed:?}");
        let versions = run(Command::new("readelf").args(["-W", "-V"]).arg(&path));
        let newest = versions
            .split("GLIBC_")
            .skip(1)
            .filter_map(|rest| {
                let number = rest.split(|c: char| !c.is_ascii_digit() && c != '.').next()?;
                let (major, rest) = number.split_once('.')?;
                Some((major.parse().ok()?, rest.split('.').next()?.parse().ok()?))
            })
            .max();
        let newest: (u32, u32) = newest.expect("it names versions");
        assert!(newest <= GLIBC, "{program} needs glibc {newest:?}");
    }
}

#[test]
fn programs_do_not_say_where_they_were_built() {
    let package = package!();
    let home = env::var("HOME").expect("somebody is logged in");
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a member").to_owned();
    for program in ["usr/sbin/flowd", "usr/bin/flowctl"] {
        let bytes = fs::read(package.root().join(program)).expect("it is there");
        for place in [format!("{home}/."), format!("{}/", workspace.display())] {
            let is_there = bytes.windows(place.len()).any(|window| window == place.as_bytes());
            assert!(!is_there, "{program} says {place}");
        }
    }
}

#[test]
fn units_are_right_and_what_they_name_is_there() {
    let package = package!();
    // Nothing but the package says where its programs are.
    let elsewhere = tempfile::tempdir().expect("a directory");
    let mut files = Vec::new();
    for name in UNITS {
        let unit = package.unit(name);
        let program = package.root().join("usr/sbin/flowd").display().to_string();
        let path = elsewhere.path().join(name);
        fs::write(&path, unit.replace("/usr/sbin/flowd", &program)).expect("room");
        files.push(path);
        for key in ["ExecStart", "ExecStartPre", "ExecReload"] {
            for command in values(&unit, key) {
                let command = command.trim_start_matches(['-', '+']);
                let program = command.split(' ').next().expect("a command");
                let is_ours = package.root().join(program.trim_start_matches('/')).is_file();
                assert!(is_ours || OF_OTHERS.contains(&program), "{name} runs {program}");
            }
        }
        for page in values(&unit, "Documentation").iter().flat_map(|pages| pages.split(' ')) {
            let (page, section) = page
                .trim_start_matches("man:")
                .trim_end_matches(')')
                .split_once('(')
                .expect("a manual page");
            let path = format!("usr/share/man/man{section}/{page}.{section}.gz");
            assert!(package.root().join(&path).is_file(), "{name} names {path}");
        }
    }
    let mut verify = Command::new("systemd-analyze");
    verify.args(["verify", "--man=no", "--recursive-errors=no"]).args(&files);
    let output = verify.output().expect("systemd is installed");
    let said = String::from_utf8_lossy(&output.stderr);
    let of_ours = |line: &&str| line.contains("flowd");
    assert_eq!(said.lines().filter(of_ours).collect::<Vec<_>>(), Vec::<&str>::new());
}

#[test]
fn the_services_are_confined() {
    let package = package!();
    for name in ["flowd.service", "flowd-names.service"] {
        let path = package.root().join("usr/lib/systemd/system").join(name);
        let threshold = format!("--threshold={EXPOSURE}");
        let words = ["security", "--offline=true", "--no-pager", &threshold];
        run(Command::new("systemd-analyze").args(words).arg(path));
    }
    let unit = package.unit("flowd.service");
    let three = "CAP_BPF CAP_NET_ADMIN CAP_PERFMON";
    assert_eq!(values(&unit, "CapabilityBoundingSet"), [three]);
    assert_eq!(values(&unit, "AmbientCapabilities"), [three]);
    assert_eq!(values(&unit, "User"), ["flowd"]);
    assert_eq!(values(&package.unit("flowd-names.service"), "CapabilityBoundingSet"), [""]);
}

#[test]
fn places_and_users_agree_in_all_of_it() {
    let package = package!();
    let config = flowd::config::Config::parse(&package.text("etc/flowd/flowd.toml"))
        .expect("the configuration is valid");
    let (service, socket) = (package.unit("flowd.service"), package.unit("flowd.socket"));
    assert_eq!(values(&socket, "ListenStream"), [config.socket.to_str().expect("UTF-8")]);
    assert_eq!(values(&socket, "SocketMode"), ["0660"]);
    assert_eq!(values(&socket, "SocketGroup"), values(&service, "Group"));
    assert_eq!(values(&service, "StateDirectory"), ["flowd"]);
    assert_eq!(config.store, Path::new("/var/lib/flowd"));
    let pins = config.pins.to_str().expect("UTF-8");
    assert_eq!(values(&service, "BindPaths"), [format!("-{pins}")]);
    let copy = config.names.copy.to_str().expect("UTF-8");
    let names = package.unit("flowd-names.service");
    assert!(values(&names, "ExecStart")[0].ends_with(&format!("names --to {copy}")));
    let watched: Vec<_> = config.names.wireguard.iter().chain(&config.names.networkd).collect();
    let path = package.unit("flowd-names.path");
    assert_eq!(values(&path, "PathChanged").iter().map(Path::new).collect::<Vec<_>>(), watched);

    // As a new system would get them.
    let root = tempfile::tempdir().expect("a directory");
    let made = |place: &str| root.path().join(place.trim_start_matches('/'));
    fs::create_dir(made("/etc")).expect("room");
    let mut users = Command::new("systemd-sysusers");
    run(users
        .arg("--root")
        .arg(root.path())
        .arg(package.root().join("usr/lib/sysusers.d/flowd.conf")));
    let accounts = fs::read_to_string(made("/etc/passwd")).expect("it was made");
    let account = accounts.lines().find(|line| line.starts_with("flowd:")).expect("a user");
    assert!(account.ends_with(":/var/lib/flowd:/usr/sbin/nologin"), "{account}");
    let mut places = Command::new("systemd-tmpfiles");
    places.args(["--create", "--root"]).arg(root.path());
    run(places.arg(package.root().join("usr/lib/tmpfiles.d/flowd.conf")));
    for (place, mode, owner) in [
        ("/run/flowd", 0o755, false),
        ("/run/flowd/names", 0o2750, false),
        ("/var/lib/flowd", 0o750, true),
    ] {
        use std::os::unix::fs::MetadataExt as _;
        let found = fs::metadata(made(place)).unwrap_or_else(|error| panic!("{place}: {error}"));
        assert_eq!(found.mode() & 0o7777, mode, "{place}");
        let uid = account.split(':').nth(2).expect("a number");
        assert_eq!(found.uid().to_string() == uid, owner, "{place}");
    }
}
