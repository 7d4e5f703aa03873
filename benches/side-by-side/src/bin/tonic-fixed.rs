//! The empty handler, but that its answer is as large as the others' are.

use glacier_gateway::proto::v1::{DescribeJobRequest, DescribeJobResponse};
use side_by_side::{
    Outcome, job, serving,
    v1::job_service_server::{JobService, JobServiceServer},
};
use tonic::{Request, Response, Status, transport::Server};

struct Fixed(DescribeJobResponse);

#[tonic::async_trait]
impl JobService for Fixed {
    async fn describe_job(&self, _: Request<DescribeJobRequest>) -> Result<Response<DescribeJobResponse>, Status> {
        Ok(Response::new(self.0.clone()))
    }
}

fn main() -> Outcome<()> {
    let (address, completion) = serving::arguments()?;
    let service = JobServiceServer::new(Fixed(job::fixed_response(0, completion)));
    Ok(serving::runtime()?.block_on(Server::builder().add_service(service).serve(address))?)
}
