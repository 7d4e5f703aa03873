//! Compiles `proto/` without protoc: protox parses, tonic-prost-build generates, and the descriptor set
//! (comments and options included) is written beside the code for server reflection.

use std::{env, error::Error, fs, path::PathBuf};

const PROTO_ROOT: &str = "proto";
const PROTO_FILE: &str = "proto/glacier/jobs/v1/job_service.proto";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed={PROTO_ROOT}");
    let mut compiler = protox::Compiler::new([PROTO_ROOT])?;
    compiler.include_source_info(true).include_imports(true).open_file(PROTO_FILE)?;

    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?);
    // Not `file_descriptor_set()`: only the encoded form keeps custom options.
    fs::write(out.join("glacier_jobs_v1.bin"), compiler.encode_file_descriptor_set())?;

    // The server side is ours (`grpc/job_service.rs`): its answers are bytes that the cache holds ready.
    tonic_prost_build::configure()
        .build_server(false)
        .build_transport(false)
        .compile_fds(compiler.file_descriptor_set())?;
    Ok(())
}
