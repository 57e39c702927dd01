//! What an operator does with flowd's package on a gateway with systemd and the kernel's WireGuard,
//! from the installation to the purge. One story: each step goes on where the one before has left
//! the machine, which is booted twice. `cargo xtask test --tier install` makes the machine.

mod gateway;
mod operator;
mod story;
mod watched;

mod access;
mod confinement;
mod installation;
mod interface;
mod journal;
mod policy;
mod reboot;
mod removal;
mod upgrade;
mod watchdog;

use std::process::ExitCode;

use flowd_tests::{own_machine, skip};

use self::gateway::Gateway;
use self::story::{End, Step, steps, tell};

/// The steps of each boot; the last one of all but the last boot restarts the machine.
const BOOTS: [&[Step]; 2] = [
    steps![
        installation::needs_no_network_and_starts,
        confinement::runs_as_its_own_user_with_three_capabilities,
        confinement::keeps_what_it_has_to_itself,
        interface::one_that_wg_quick_makes_later_is_watched,
        interface::sums_are_those_of_wireguard_to_the_byte,
        access::a_member_of_the_group_asks,
        access::a_stranger_is_refused_in_one_line,
        interface::one_that_wg_quick_makes_again_is_watched,
        policy::a_reload_reads_names_and_puts_a_policy_into_force,
        policy::a_wrong_policy_is_refused_and_the_old_one_stays,
        journal::has_told_no_trouble_but_the_wrong_policy,
        upgrade::loses_no_packet_and_lets_none_through,
        watchdog::a_daemon_that_stands_still_is_replaced,
        reboot::the_gateway_restarts,
    ],
    steps![
        reboot::everything_comes_up_by_itself,
        reboot::what_was_recorded_is_still_there,
        reboot::the_policy_is_in_force,
        journal::has_told_no_trouble,
        access::the_socket_starts_the_daemon,
        removal::leaves_nothing_in_the_kernel_and_keeps_the_data,
        removal::installed_again_it_goes_on,
        removal::a_purge_takes_the_data_too,
    ],
];

fn main() -> ExitCode {
    if std::env::args().any(|argument| argument == "--list") {
        BOOTS.iter().copied().flatten().for_each(|(name, _)| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    if !own_machine::is_given() {
        skip::announce("it needs a machine of its own: run `cargo xtask test --tier install`");
        return ExitCode::SUCCESS;
    }
    own_machine::came_up();
    let mut gateway = Gateway::boot();
    let is_last = gateway.boots() == BOOTS.len();
    let end = tell(BOOTS[gateway.boots() - 1], &mut gateway);
    if !is_last && end != End::AtOnce {
        own_machine::reboot();
    }
    own_machine::end(u8::from(end != End::Well));
}
