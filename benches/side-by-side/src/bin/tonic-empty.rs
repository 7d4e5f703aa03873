//! tonic as its guide shows it: its own transport, generated code, and a handler that does nothing.

use glacier_gateway::proto::v1::{DescribeJobRequest, DescribeJobResponse};
use side_by_side::{
    Outcome, serving,
    v1::job_service_server::{JobService, JobServiceServer},
};
use tonic::{Request, Response, Status, transport::Server};

struct Empty;

#[tonic::async_trait]
impl JobService for Empty {
    async fn describe_job(&self, _: Request<DescribeJobRequest>) -> Result<Response<DescribeJobResponse>, Status> {
        Ok(Response::new(DescribeJobResponse::default()))
    }
}

fn main() -> Outcome<()> {
    let (address, _) = serving::arguments()?;
    let served = Server::builder().add_service(JobServiceServer::new(Empty)).serve(address);
    Ok(serving::runtime()?.block_on(served)?)
}
