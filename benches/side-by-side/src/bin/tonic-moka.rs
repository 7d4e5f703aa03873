//! The cache that one would write in an afternoon: tonic's own transport, moka, and a message that is cloned and encoded
//! for every hit. A job that it does not know it makes up.

use glacier_gateway::proto::v1::{DescribeJobRequest, DescribeJobResponse};
use moka::sync::Cache;
use side_by_side::{
    Outcome,
    job::{self, Completion},
    serving,
    v1::job_service_server::{JobService, JobServiceServer},
};
use tonic::{Request, Response, Status, transport::Server};

struct Cached {
    jobs: Cache<(String, String, String), DescribeJobResponse>,
    completion: Completion,
}

#[tonic::async_trait]
impl JobService for Cached {
    async fn describe_job(
        &self,
        request: Request<DescribeJobRequest>,
    ) -> Result<Response<DescribeJobResponse>, Status> {
        let DescribeJobRequest { account_id, vault_name, job_id, max_age: _ } = request.into_inner();
        let digits = job_id.len().checked_sub(job::DIGITS).and_then(|start| job_id.get(start..));
        let key = digits.and_then(|digits| digits.parse().ok()).ok_or_else(|| Status::not_found("no such job"))?;
        let name = (account_id, vault_name, job_id);
        let known = self.jobs.get(&name);
        let job = known.unwrap_or_else(|| self.jobs.get_with(name, || job::fixed_response(key, self.completion)));
        Ok(Response::new(job))
    }
}

fn main() -> Outcome<()> {
    let (address, completion) = serving::arguments()?;
    let service = JobServiceServer::new(Cached { jobs: Cache::new(2_000_000), completion });
    Ok(serving::runtime()?.block_on(Server::builder().add_service(service).serve(address))?)
}
