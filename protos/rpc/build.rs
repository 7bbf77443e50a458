//! Makes Rust of the `.proto` files, without `protoc`.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = ["castgate/v1/fleet.proto", "castgate/v1/hierarchy.proto"];
    for file in files {
        println!("cargo:rerun-if-changed={file}");
    }
    let descriptors = protox::compile(files, ["."])?;
    tonic_prost_build::configure().btree_map(".").compile_fds(descriptors)?;
    Ok(())
}
