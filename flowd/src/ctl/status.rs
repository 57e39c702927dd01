//! `flowctl status`: how the daemon is, and whether its books balance.

use super::{
    error::CtlError,
    output::Screen,
    table::{Align, Table, Tone, Value},
    text,
};
use crate::{
    flows::Counters,
    wire::{Gap, InterfaceStatus, ProgramStatus, Status, TableStatus, Timestamp},
};

/// Shows daemon, interfaces, losses, table, store.
pub(super) fn show(screen: &mut Screen, status: &Status) -> Result<(), CtlError> {
    let uptime = text::duration((status.now.0 - status.started.0).max(0));
    screen.line(&format!(
        "flowd {} on {}, up {uptime}, policy {} ({})",
        text::visible(&status.version),
        text::visible(&status.gateway),
        status.policy.revision,
        text::visible(&status.policy.mode),
    ))?;
    if status.policy.mode == "enforce" && !status.policy.stays {
        screen.line("The policy is not in force while flowd is down: see flowd's log")?;
    }
    screen.line("")?;
    if status.interfaces.is_empty() {
        screen.line("No WireGuard interface is watched.")?;
    } else {
        let table = interfaces(&status.interfaces);
        screen.table(table)?;
        explain(screen, &status.interfaces, &status.flow_table)?;
    }
    screen.line("")?;
    let table = &status.flow_table;
    let percent = table.entries * 100 / table.capacity.max(1);
    let line = format!("{} of {} entries ({percent}%)", table.entries, table.capacity);
    screen.line(&format!("Flow table  {line}"))?;
    let drain = &status.drain;
    let last = drain.last.map_or_else(
        || "none yet".to_owned(),
        |last| {
            let ago = text::duration((status.now.0 - last.0).max(0));
            format!("{ago} ago, took {:.1} ms", drain.last_duration_us as f64 / 1e3)
        },
    );
    screen.line(&format!("Last drain  {last}; {} records since the start", drain.records))?;
    let store = &status.store;
    screen.line(&format!(
        "Store       {}: {} in {} segments, last record {}",
        text::visible(&store.path),
        text::bytes(store.bytes),
        store.segments,
        store.last_record_id
    ))?;
    if let Some(error) = &store.error {
        let (error, since) = (text::visible(error), lasting(status, store.failing_since));
        screen.line(&format!("Store FAILS {error}; the kernel keeps the counts{since}"))?;
    }
    if let Some(error) = &store.keeper_error {
        let (error, since) = (text::visible(error), lasting(status, store.keeper_failing_since));
        screen.line(&format!("Keeper FAILS {error}; old days stay as they are{since}"))?;
    }
    for aside in &store.set_aside {
        screen.line(&format!("Store LOST  {}", text::visible(aside)))?;
    }
    let open: u64 = status.gaps.iter().map(|stage| stage.open).sum();
    if open > 0 {
        let named: Vec<_> = status.open_gaps.iter().map(gap).collect();
        let more = open.saturating_sub(named.len() as u64);
        let more = if more == 0 { String::new() } else { format!(", {more} more") };
        let named = named.join(", ");
        screen.line(&format!("Gaps OPEN   {named}{more}: see `flowctl gaps`"))?;
    }
    Ok(())
}

fn lasting(status: &Status, since: Option<Timestamp>) -> String {
    since.map_or_else(String::new, |since| {
        format!(", for {}", text::duration((status.now.0 - since.0).max(0)))
    })
}

fn gap(gap: &Gap) -> String {
    let peer = gap.peer.as_ref().map(|peer| peer.name.as_str());
    let of = [gap.interface.as_deref(), peer].into_iter().flatten().map(text::visible);
    let of: Vec<_> = std::iter::once(gap.stage.word().to_owned()).chain(of).collect();
    of.join(" ")
}

fn interfaces(interfaces: &[InterfaceStatus]) -> Table {
    let mut table = Table::new(&[
        ("INTERFACE", Align::Left, 0),
        ("ATTACHED", Align::Left, 0),
        ("BACKEND", Align::Left, 3),
        ("PEERS", Align::Right, 2),
        ("RX", Align::Right, 1),
        ("RX-PACKETS", Align::Right, 4),
        ("TX", Align::Right, 1),
        ("TX-PACKETS", Align::Right, 4),
        ("BOOKS", Align::Left, 0),
    ]);
    for interface in interfaces {
        let attached = match interface.attached_by.as_str() {
            "detached" => Value::toned("detached", Tone::Dim),
            by => Value::toned(by, Tone::Good),
        };
        table.row(vec![
            text::visible(&interface.name).into(),
            attached,
            interface.backend.as_str().into(),
            interface.peers.to_string().into(),
            text::bytes(interface.seen.rx_bytes).into(),
            text::count(interface.seen.rx_packets).into(),
            text::bytes(interface.seen.tx_bytes).into(),
            text::count(interface.seen.tx_packets).into(),
            books(interface),
        ]);
    }
    table
}

/// Whether what flowd saw is what the device counted. Kernel WireGuard's device counts what it
/// encrypted, so there is nothing to compare byte by byte.
fn books(interface: &InterfaceStatus) -> Value {
    if interface.backend == "kernel" {
        return "see wg".into();
    }
    let InterfaceStatus { seen, coalesced, dropped, device, .. } = interface;
    // What was dropped on the way to the device, it has not seen.
    let seen = &Counters {
        tx_packets: seen.tx_packets.saturating_sub(dropped.tx_packets),
        tx_bytes: seen.tx_bytes.saturating_sub(dropped.tx_bytes),
        ..*seen
    };
    let buffers = Counters {
        rx_packets: seen.rx_packets.saturating_sub(coalesced.rx_packets),
        rx_bytes: seen.rx_bytes.saturating_sub(coalesced.rx_bytes),
        tx_packets: seen.tx_packets.saturating_sub(coalesced.tx_packets),
        tx_bytes: seen.tx_bytes.saturating_sub(coalesced.tx_bytes),
    };
    let same = |seen: (u64, u64), buffers: (u64, u64), device: (u64, u64)| {
        seen == device || buffers == device
    };
    let rx = |c: &Counters| (c.rx_packets, c.rx_bytes);
    let tx = |c: &Counters| (c.tx_packets, c.tx_bytes);
    if same(rx(seen), rx(&buffers), rx(device)) && same(tx(seen), tx(&buffers), tx(device)) {
        return Value::toned("balanced", Tone::Good);
    }
    let off = device.packets().abs_diff(seen.packets());
    Value::toned(format!("{} packets apart", text::count(off)), Tone::Bad)
}

fn program(program: &ProgramStatus) -> String {
    match program {
        ProgramStatus { own: true, .. } => "flowd".to_owned(),
        ProgramStatus { id, name: Some(name), .. } => format!("{} ({id})", text::visible(name)),
        ProgramStatus { id, name: None, .. } => format!("program {id}"),
    }
}

fn explain(
    screen: &mut Screen,
    interfaces: &[InterfaceStatus],
    table: &TableStatus,
) -> Result<(), CtlError> {
    for interface in interfaces {
        let name = text::visible(&interface.name);
        for (direction, programs) in
            [("ingress", &interface.ingress), ("egress", &interface.egress)]
        {
            if programs.iter().any(|program| !program.own) {
                let row: Vec<_> = programs.iter().map(program).collect();
                screen.line(&format!("{name}: on {direction} run {}", row.join(", then ")))?;
            }
        }
        if interface.backend == "kernel" {
            let device = &interface.device;
            screen.line(&format!(
                "{name}: the kernel's device counted rx {} in {}, tx {} in {} packets, encryption, \
                 keepalives and handshakes included",
                text::bytes(device.rx_bytes),
                text::count(device.rx_packets),
                text::bytes(device.tx_bytes),
                text::count(device.tx_packets)
            ))?;
        }
        if interface.overflow.packets() > 0 {
            let remedy = if table.entries >= table.capacity {
                ": the flow table is full, raise `flows.table_size`"
            } else {
                ", since the flow table was full, or the policy judged them apart from their flow"
            };
            screen.line(&format!(
                "{name}: {} packets are in no flow but summed per peer{remedy}",
                text::count(interface.overflow.packets())
            ))?;
        }
        if interface.dropped.packets() > 0 {
            screen.line(&format!(
                "{name}: {} packets were dropped by the policy: see `flowctl flows --verdict deny`",
                text::count(interface.dropped.packets())
            ))?;
        }
        for tally in &interface.uncounted {
            screen.line(&format!(
                "{name}: {} packets are in no flow: {}",
                text::count(tally.counters.packets()),
                text::visible(&tally.reason)
            ))?;
        }
    }
    Ok(())
}
