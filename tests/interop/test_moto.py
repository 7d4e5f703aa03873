"""The gateway before moto, a Glacier that others wrote: jobs are followed to their end and compared with boto3's view.

moto's description of a job is one of two documents, in progress and succeeded, and each is constant. So every answer of the
gateway is compared with boto3's document of the same state, whichever of the two was asked first.
"""

import os
import re
import time
from datetime import timedelta

import boto3
import grpc
import pytest
from glacier.jobs.v1 import job_service_pb2 as pb
from glacier.jobs.v1 import job_service_pb2_grpc
from google.protobuf.duration_pb2 import Duration

from mapping import JOB, actual, expected
from process import ACCESS_KEY, REGION, SECRET_KEY, START_SECONDS, running, running_gateway

VAULT = "interop.vault_1"
MAX_AGE_SECONDS = 1
# The slowest job, Bulk, takes moto 10 s.
FOLLOW_SECONDS = 30
BETWEEN_POLLS_SECONDS = 0.2

JOBS = {
    "inventory": {"Type": "inventory-retrieval"},
    "expedited archive": {"Type": "archive-retrieval", "Tier": "Expedited"},
    "standard archive": {"Type": "archive-retrieval", "Tier": "Standard"},
    "bulk archive": {"Type": "archive-retrieval", "Tier": "Bulk"},
}


class History:
    """One job on its way: boto3's document of each state, and every answer of the gateway in order."""

    def __init__(self, job_id):
        self.job_id = job_id
        self.documents = {}
        self.answers = []

    @property
    def finished(self):
        """Whether both have said that the job succeeded."""
        return "Succeeded" in self.documents and self.answers[-1].job.status_code == pb.STATUS_CODE_SUCCEEDED


@pytest.fixture(scope="module")
def moto():
    """moto's server, as a URL."""
    # moto writes its local time with a "Z", so its local time has to be UTC.
    env = {**os.environ, "TZ": "UTC"}
    with running("moto", ["moto_server", "-H", "127.0.0.1", "-p", "0"], env) as process:
        yield process.wait_for(
            lambda line: (url := re.search(r"Running on (http://127\.0\.0\.1:\d+)", line)) and url[1], START_SECONDS
        )


@pytest.fixture(scope="module")
def glacier(moto):
    """boto3's client of moto."""
    return boto3.client(
        "glacier",
        endpoint_url=moto,
        region_name=REGION,
        aws_access_key_id=ACCESS_KEY,
        aws_secret_access_key=SECRET_KEY,
    )


@pytest.fixture(scope="module")
def stub(moto):
    """A stub of the gateway before moto, which forgets soon what may change soon."""
    flags = ["--fresh-in-progress", "1s", "--fresh-expedited", "1s"]
    with running_gateway(moto, *flags) as gateway, grpc.insecure_channel(gateway.address) as channel:
        yield job_service_pb2_grpc.JobServiceStub(channel)


@pytest.fixture(scope="module")
def histories(glacier, stub):
    """Every kind of job, started at the same time and followed to its end through boto3 and through the gateway."""
    glacier.create_vault(vaultName=VAULT)
    archive = glacier.upload_archive(vaultName=VAULT, archiveDescription="one archive", body=b"kept for a long time")

    histories = {}
    for name, parameters in JOBS.items():
        if parameters["Type"] == "archive-retrieval":
            parameters = {**parameters, "ArchiveId": archive["archiveId"]}
        histories[name] = History(glacier.initiate_job(vaultName=VAULT, jobParameters=parameters)["jobId"])
        observe(histories[name], glacier, stub)

    # moto tells nobody when a job ends, so the only way to know is to ask.
    deadline = time.monotonic() + FOLLOW_SECONDS
    while waiting := [history for history in histories.values() if not history.finished]:
        assert time.monotonic() < deadline, f"not finished after {FOLLOW_SECONDS} s: {[h.answers[-1] for h in waiting]}"
        time.sleep(BETWEEN_POLLS_SECONDS)
        for history in waiting:
            observe(history, glacier, stub)
    return histories


def observe(history, glacier, stub):
    """Asks boto3 and the gateway, and checks what must hold between two answers that follow each other."""
    document = glacier.describe_job(vaultName=VAULT, jobId=history.job_id)
    del document["ResponseMetadata"]
    history.documents[document["StatusCode"]] = document
    boto3_answered = time.time()

    answer = describe(stub, history.job_id)[0]
    age = time.time() - answer.observe_time.ToNanoseconds() / 1e9
    assert -0.1 < age < MAX_AGE_SECONDS + 0.5, f"an answer {age} s old was given to a caller who accepts {MAX_AGE_SECONDS} s"
    if document["StatusCode"] == "Succeeded" and answer.observe_time.ToNanoseconds() / 1e9 > boto3_answered:
        assert answer.job.status_code == pb.STATUS_CODE_SUCCEEDED
    history.answers.append(answer)


def describe(stub, job_id):
    """The gateway's answer and its response headers."""
    request = pb.DescribeJobRequest(vault_name=VAULT, job_id=job_id, max_age=Duration(seconds=MAX_AGE_SECONDS))
    answer, call = stub.DescribeJob.with_call(request, timeout=10)
    return answer, dict(call.initial_metadata())


@pytest.mark.parametrize("name", JOBS)
def test_a_job_is_followed_from_in_progress_to_succeeded(histories, name):
    states = [answer.job.status_code for answer in histories[name].answers]

    assert states[0] == pb.STATUS_CODE_IN_PROGRESS
    assert states[-1] == pb.STATUS_CODE_SUCCEEDED
    # No way back, and nothing else on the way.
    assert states == sorted(states)
    assert set(states) == {pb.STATUS_CODE_IN_PROGRESS, pb.STATUS_CODE_SUCCEEDED}


@pytest.mark.parametrize("name", JOBS)
def test_every_field_is_what_boto3_says_in_the_same_state(histories, name):
    history = histories[name]
    in_state = {"STATUS_CODE_IN_PROGRESS": "InProgress", "STATUS_CODE_SUCCEEDED": "Succeeded"}

    for answer in history.answers:
        document = history.documents[in_state[pb.StatusCode.Name(answer.job.status_code)]]
        assert actual(answer.job) == expected(JOB, document)


@pytest.mark.parametrize("name", JOBS)
def test_the_output_may_expire_a_day_after_completion_and_not_before(histories, name):
    for answer in histories[name].answers:
        if answer.job.status_code == pb.STATUS_CODE_IN_PROGRESS:
            assert not answer.HasField("expire_time")
        else:
            assert answer.expire_time.ToDatetime() == answer.job.completion_date.ToDatetime() + timedelta(hours=24)


def test_repeated_questions_within_the_interval_are_answered_from_memory(histories):
    """Polled five times a second with answers good for one, most answers come from memory."""
    answers = histories["bulk archive"].answers
    asked = {answer.observe_time.ToNanoseconds() for answer in answers}

    assert len(asked) < len(answers) / 2, f"{len(asked)} upstream answers for {len(answers)} calls"
