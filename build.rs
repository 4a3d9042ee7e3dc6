//! Compiles `proto/` with protox, so that no `protoc` is needed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = [
        "proto/carillon/v1/event.proto",
        "proto/carillon/v1/delivery.proto",
        "proto/carillon/v1/attempt.proto",
    ];
    for file in files {
        println!("cargo:rerun-if-changed={file}");
    }
    let descriptors = protox::compile(files, ["proto"])?;
    prost_build::Config::new()
        .bytes(["."])
        .skip_source_info()
        .compile_fds(descriptors)?;
    Ok(())
}
