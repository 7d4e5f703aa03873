#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| glacier_gateway_fuzz::describe_job_answer(input));
