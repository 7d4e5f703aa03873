//! The server side of the gateway's proto file, for the tonic peers: the gateway itself generates none. The messages are
//! the gateway's own.

use std::error::Error;

const PROTO_ROOT: &str = "../../proto";
const PROTO_FILE: &str = "../../proto/glacier/jobs/v1/job_service.proto";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed={PROTO_ROOT}");
    let mut compiler = protox::Compiler::new([PROTO_ROOT])?;
    compiler.include_imports(true).open_file(PROTO_FILE)?;
    tonic_prost_build::configure()
        .build_client(false)
        .extern_path(".glacier.jobs.v1", "::glacier_gateway::proto::v1")
        .compile_fds(compiler.file_descriptor_set())?;
    Ok(())
}
