//! The client, as a person or a program uses it.

use std::process::{Command, Output};

use flowd::{
    flows::{Counters, FlowId},
    wire::{
        Flow, FlowDetail, FlowPage, Gap, GapList, InterfaceStatus, PeerDetail, PeerList, Policy,
        PolicyReport, Status, Summary, Top,
    },
};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::{
    namespace::Namespace,
    site::{self, Site},
    wait,
};

/// `flowctl` on one socket.
#[derive(Clone, Copy, Debug)]
pub struct Flowctl<'a> {
    site: &'a Site,
    namespace: &'a Namespace,
}

impl<'a> Flowctl<'a> {
    /// For the daemon of `site`, started in `namespace`.
    pub fn new(site: &'a Site, namespace: &'a Namespace) -> Self {
        Self { site, namespace }
    }

    /// `flowctl --socket … <args>`, to be run.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = self.namespace.command(site::binary("FLOWCTL_BIN", "flowctl"));
        command.arg("--socket").arg(self.site.socket()).args(args);
        command
    }

    /// What it did.
    pub fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().expect("flowctl is built")
    }

    /// The one line with which it failed.
    pub fn failure(&self, args: &[&str], code: i32) -> String {
        site::one_line_of_failure(&self.run(args), code)
    }

    /// The JSON it printed.
    pub fn json<T: DeserializeOwned>(&self, args: &[&str]) -> T {
        let output = self.run(&[&["-o", "json"], args].concat());
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "flowctl {}: {stderr}", args.join(" "));
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
            panic!(
                "flowctl {}: {error}: {}",
                args.join(" "),
                String::from_utf8_lossy(&output.stdout)
            )
        })
    }

    /// The first key of the gateway, which flowd makes soon after it is ready.
    pub fn key(&self) -> String {
        let store = self.site.path("store").display().to_string();
        wait::until_some(wait::SOON, "there is a key", || {
            let keys: Value = self.json(&["keys", "show", "--store", &store]);
            Some(keys[0]["key"].as_str()?.to_owned())
        })
    }

    /// `flowctl status`.
    pub fn status(&self) -> Status {
        self.json(&["status"])
    }

    /// `flowctl summary`.
    pub fn summary(&self) -> Summary {
        self.json(&["summary"])
    }

    /// `flowctl top`.
    pub fn top(&self, args: &[&str]) -> Top {
        self.json(&[&["top"], args].concat())
    }

    /// `flowctl peers`.
    pub fn peers(&self) -> PeerList {
        self.json(&["peers"])
    }

    /// `flowctl gaps`.
    pub fn gaps(&self, args: &[&str]) -> Vec<Gap> {
        self.json::<GapList>(&[&["gaps"], args].concat()).gaps
    }

    /// The only gap of a stage, once it has ended.
    pub fn ended_gap(&self, stage: &str) -> Gap {
        wait::until_some(wait::SOON, "a gap has ended", || {
            let mut gaps = self.gaps(&["--stage", stage]);
            assert!(gaps.len() <= 1, "{gaps:#?}");
            gaps.pop().filter(|gap| gap.to.is_some())
        })
    }

    /// `flowctl peer NAME`.
    pub fn peer(&self, name: &str) -> PeerDetail {
        self.json(&["peer", name])
    }

    /// `flowctl flow ID`.
    pub fn flow(&self, id: &FlowId) -> FlowDetail {
        self.json(&["flow", &id.to_string()])
    }

    /// `flowctl policy apply` of a text, which must succeed.
    pub fn apply(&self, text: &str) -> PolicyReport {
        self.site.write("candidate.toml", text);
        let path = self.site.path("candidate.toml");
        self.json(&["policy", "apply", path.to_str().expect("it is text")])
    }

    /// `flowctl policy show`.
    pub fn policy(&self) -> Policy {
        self.json(&["policy", "show"])
    }

    /// All flows that pass the filter, page by page.
    pub fn flows(&self, filter: &[&str]) -> Vec<Flow> {
        let mut flows = Vec::new();
        let mut cursor: Option<String> = None;
        loop {
            let mut args = [&["flows", "--limit", "200"], filter].concat();
            args.extend(cursor.iter().flat_map(|cursor| ["--cursor", cursor]));
            let page: FlowPage = self.json(&args);
            flows.extend(page.flows);
            cursor = page.next_cursor;
            if cursor.is_none() {
                return flows;
            }
        }
    }

    /// The only flow that passes the filter, once it counted `expected`.
    pub fn one_flow(&self, filter: &[&str], expected: Counters) -> Flow {
        let what = format!("flows {}", filter.join(" "));
        wait::until_equal(&what, &vec![expected], || {
            self.flows(filter).iter().map(|flow| flow.total).collect()
        });
        self.flows(filter).remove(0)
    }

    /// The newest interface of this name, once flowd is attached to it.
    pub fn attached(&self, name: &str) -> InterfaceStatus {
        wait::until_some(wait::SOON, "flowd attaches", || {
            self.interface(name).filter(|interface| interface.attached_by != "detached")
        })
    }

    /// The newest interface of this name.
    pub fn interface(&self, name: &str) -> Option<InterfaceStatus> {
        let all = self.status().interfaces.into_iter();
        all.filter(|interface| interface.name == name).max_by_key(|interface| interface.since)
    }
}
