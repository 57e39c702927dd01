//! Builds the eBPF object (stand-in).
fn main() {
    // SAFETY: single-threaded.
    unsafe { std::env::set_var("RUSTC_BOOTSTRAP", "1") };
    aya_build::build_ebpf(
        [aya_build::Package {
            name: "flowd-ebpf",
            root_dir: concat!(env!("CARGO_MANIFEST_DIR"), "/../flowd-ebpf"),
            ..Default::default()
        }],
        aya_build::Toolchain::Custom("debian"),
    )
    .unwrap();
}
