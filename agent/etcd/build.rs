//! Makes Rust of the `.proto` files, without `protoc`.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = ["etcd/kv.proto", "etcd/rpc.proto"];
    for file in files {
        println!("cargo:rerun-if-changed={file}");
    }
    let descriptors = protox::compile(files, ["."])?;
    // The services are for the tests, which speak as a member.
    tonic_prost_build::configure().compile_fds(descriptors)?;
    Ok(())
}
