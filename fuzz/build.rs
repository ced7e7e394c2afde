//! Links libFuzzer, which `scripts/fuzz` has compiled.

fn main() {
    println!("cargo:rerun-if-env-changed=POINTSMAN_LIBFUZZER");
    if let Ok(archive) = std::env::var("POINTSMAN_LIBFUZZER") {
        println!("cargo:rerun-if-changed={archive}");
        println!("cargo:rustc-link-arg-bins={archive}");
        println!("cargo:rustc-link-arg-bins=-lstdc++");
    }
}
