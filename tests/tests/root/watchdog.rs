//! What flowd tells the service manager.

use std::{
    fs,
    io::ErrorKind,
    os::unix::net::{UnixDatagram, UnixStream},
    time::Duration,
};

use flowd_tests::{
    site::{Settings, Site},
    skip,
    topology::Topology,
    wait,
};

/// Drains that would be told in it, were there any.
const MANY_INTERVALS: Duration = Duration::from_secs(3);

fn next(notices: &UnixDatagram) -> String {
    let mut buffer = [0; 512];
    let bytes = notices.recv(&mut buffer).expect("flowd tells something");
    String::from_utf8_lossy(&buffer[..bytes]).trim().to_owned()
}

#[test]
fn the_drain_feeds_the_watchdog_and_nothing_else_does() {
    let net = Topology::new(1);
    let mut site = Site::new(&net, &Settings::default());
    if !site.use_failpoints() {
        skip!("there is no flowd with failpoints: set FLOWD_FAILPOINTS_BIN");
    }
    let (socket, stall) = (site.path("notify"), site.path("stall"));
    let notices = UnixDatagram::bind(&socket).expect("room");
    notices.set_read_timeout(Some(wait::SOON)).expect("a socket");
    let text = |path: &std::path::Path| path.to_str().expect("UTF-8").to_owned();
    site.set_environment("NOTIFY_SOCKET", Some(&text(&socket)));
    site.set_environment("FLOWD_TEST_STALL", Some(&text(&stall)));

    let daemon = site.start(&net.gateway);
    let ctl = site.flowctl(&net.gateway);
    let told: Vec<String> = (0..4).map(|_| next(&notices)).collect();
    let ready = told.iter().position(|notice| notice == "READY=1").expect("it says so first");
    assert!(ready <= 1, "a drain may be done before, not more: {told:?}");
    assert!(ctl.interface("wg0").is_some(), "it was ready when it hung on the interface");
    assert_eq!(told.iter().filter(|notice| *notice == "WATCHDOG=1").count(), 3, "{told:?}");

    site.write("stall", "");
    wait::until(wait::SOON, "the drain thread stands still", || {
        site.path("stall.reached").exists()
    });
    notices.set_nonblocking(true).expect("a socket");
    while notices.recv(&mut [0; 512]).is_ok() {}
    notices.set_nonblocking(false).expect("a socket");
    notices.set_read_timeout(Some(MANY_INTERVALS)).expect("a socket");
    let fed = notices.recv(&mut [0; 512]).map_err(|error| error.kind());
    assert_eq!(fed, Err(ErrorKind::WouldBlock), "somebody else feeds the watchdog");
    assert!(UnixStream::connect(site.socket()).is_ok(), "the API goes on");

    fs::remove_file(&stall).expect("it is there");
    notices.set_read_timeout(Some(wait::SOON)).expect("a socket");
    assert_eq!(next(&notices), "WATCHDOG=1");
    daemon.stop();
}
