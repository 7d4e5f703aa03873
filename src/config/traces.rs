//! OpenTelemetry's own variables (<https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/>):
//! which spans are exported, and where to. What the specification would have logged and passed over is a problem here, and
//! what the gateway cannot do is not passed over either. No value is repeated that may be a secret.

use std::{fmt, ops::RangeInclusive, path::Path, str, time::Duration};

use http::{HeaderMap, HeaderName, HeaderValue, Uri, uri::PathAndQuery};

use super::values::Problems;
use crate::{
    server::tls::Authorities,
    traces::{
        BUILT_IN, DEFAULT_BATCH, DEFAULT_DELAY, DEFAULT_ENDPOINT, DEFAULT_EXPORT_TIMEOUT, DEFAULT_QUEUE, Sampler,
        TraceSettings,
    },
};

/// An hour, in milliseconds: far beyond any use.
const MILLISECONDS: RangeInclusive<u32> = 1..=3_600_000;
/// At most some hundred megabytes of spans.
const SPANS: RangeInclusive<u32> = 1..=100_000;

/// One variable: its name, and what it is set to.
struct Variable {
    name: String,
    value: String,
}

impl Variable {
    fn problem(&self, what: impl fmt::Display, problems: &mut Problems) {
        problems.add(format!("{}: {what}", self.name));
    }

    /// A problem of a value that is no secret.
    fn must_be(&self, what: impl fmt::Display, problems: &mut Problems) {
        self.problem(format_args!("must be {what}; got {:?}", self.value), problems);
    }

    /// One of `words`; other words of the specification are not, so nothing is done in their place.
    fn word<T: Copy>(&self, words: &[(&str, T)], problems: &mut Problems) -> Option<T> {
        let found = words.iter().find(|(word, _)| *word == self.value);
        if found.is_none() {
            let known: Vec<_> = words.iter().map(|(word, _)| *word).collect();
            self.must_be(known.join(" or "), problems);
        }
        found.map(|(_, meaning)| *meaning)
    }

    fn number(&self, range: RangeInclusive<u32>, problems: &mut Problems) -> u32 {
        problems.count_within(&self.name, &self.value, range)
    }
}

/// The variables, of which an empty one counts as unset.
struct Variables<'e, E>(&'e E);

impl<E: Fn(&str) -> Option<String>> Variables<'_, E> {
    fn named(&self, name: impl Into<String>) -> Option<Variable> {
        let name = name.into();
        let value = (self.0)(&name).filter(|value| !value.is_empty())?;
        Some(Variable { name, value })
    }

    /// A variable of the exporter: the one for spans alone comes first.
    fn exporters(&self, what: &str) -> Option<Variable> {
        self.named(format!("OTEL_EXPORTER_OTLP_TRACES_{what}"))
            .or_else(|| self.named(format!("OTEL_EXPORTER_OTLP_{what}")))
    }
}

/// Where spans go and which, if the environment asks for any.
pub(super) fn read(environment: &impl Fn(&str) -> Option<String>, problems: &mut Problems) -> Option<TraceSettings> {
    let variables = Variables(environment);
    if variables.named("OTEL_SDK_DISABLED").is_some_and(|is| problems.switch(&is.name, &is.value)) {
        return None;
    }
    let given = variables.exporters("ENDPOINT");
    let exporter = variables.named("OTEL_TRACES_EXPORTER");
    match exporter.and_then(|is| is.word(&[("otlp", true), ("none", false)], problems)) {
        Some(false) => return None,
        // Without a collector there is nothing to ask for.
        None if given.is_none() => return None,
        Some(true) | None => {}
    }
    if !BUILT_IN {
        let name = given.map_or_else(|| "OTEL_TRACES_EXPORTER".to_owned(), |is| is.name);
        problems.add(format!(
            "{name}: this binary was built without traces (cargo feature `traces`); OTEL_TRACES_EXPORTER=none says \
             that none are wanted"
        ));
        return None;
    }
    if let Some(protocol) = variables.exporters("PROTOCOL") {
        let _only = protocol.word(&[("grpc", ())], problems);
    }
    for what in ["CLIENT_KEY", "CLIENT_CERTIFICATE"] {
        if let Some(variable) = variables.exporters(what) {
            variable.problem("is not supported: the gateway shows collectors no certificate", problems);
        }
    }
    let endpoint = given.map_or_else(|| Some(DEFAULT_ENDPOINT.to_owned()), |is| endpoint(&is, problems));
    let compression = variables.exporters("COMPRESSION");
    let gzip = compression.and_then(|is| is.word(&[("gzip", true), ("none", false)], problems));
    let timeout = variables.exporters("TIMEOUT").map(|is| milliseconds(&is, problems));
    let authorities = variables.exporters("CERTIFICATE").and_then(|is| authorities(&is, problems));
    let headers = variables.exporters("HEADERS").map(|is| headers(&is, problems));
    let (queue, batch) = queue(&variables, problems);
    let (resource, sampler) = (resource(&variables, problems), sampler(&variables, problems));
    let heeds_callers = variables.named("OTEL_PROPAGATORS").is_none_or(|is| heeds_callers(&is, problems));
    let delay = variables.named("OTEL_BSP_SCHEDULE_DELAY").map(|is| milliseconds(&is, problems));
    Some(TraceSettings {
        endpoint: endpoint?,
        authorities,
        headers: headers.unwrap_or_default(),
        gzip: gzip.unwrap_or_default(),
        timeout: timeout.unwrap_or(DEFAULT_EXPORT_TIMEOUT),
        resource,
        sampler,
        heeds_callers,
        queue,
        batch,
        delay: delay.unwrap_or(DEFAULT_DELAY),
    })
}

/// `http://HOST:PORT` or `https://HOST:PORT`. The URL is not repeated: it may hold a password.
fn endpoint(variable: &Variable, problems: &mut Problems) -> Option<String> {
    let uri = variable.value.parse::<Uri>().ok();
    let plain = uri.filter(|uri| {
        let scheme = matches!(uri.scheme_str(), Some("http" | "https"));
        let path = uri.path_and_query().map(PathAndQuery::as_str);
        // Neither a password nor a port that is none.
        let authority = uri.authority().is_some_and(|is| {
            !is.host().is_empty() && (is.as_str() == is.host() || is.port_u16().is_some() && !is.as_str().contains('@'))
        });
        scheme && authority && matches!(path, None | Some("" | "/"))
    });
    if plain.is_none() {
        let form = "must be http://HOST:PORT or https://HOST:PORT, without path, query or password (OTLP over gRPC)";
        variable.problem(form, problems);
    }
    plain.map(|uri| uri.to_string().trim_end_matches('/').to_owned())
}

fn milliseconds(variable: &Variable, problems: &mut Problems) -> Duration {
    Duration::from_millis(variable.number(MILLISECONDS, problems).into())
}

fn authorities(variable: &Variable, problems: &mut Problems) -> Option<Vec<u8>> {
    let content = problems.content(&variable.name, Path::new(&variable.value))?;
    let unusable = Authorities::from_pem(&content).err();
    if let Some(error) = &unusable {
        variable.problem(format_args!("{}: {error}", variable.value), problems);
    }
    unusable.is_none().then_some(content)
}

/// `key1=value1,key2=value2`, the values percent-encoded (OTLP exporter, "Specifying headers via environment variables").
fn headers(variable: &Variable, problems: &mut Problems) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (place, pair) in pairs(&variable.value).enumerate() {
        let header = pair.and_then(|(name, value)| {
            let name = name.to_ascii_lowercase().parse::<HeaderName>().ok()?;
            Some((name, HeaderValue::from_str(&value).ok()?))
        });
        match header {
            Some((name, mut value)) => {
                value.set_sensitive(true);
                headers.append(name, value);
            }
            None => variable.problem(
                format_args!("number {} of its headers is not NAME=VALUE with percent-encoding", place + 1),
                problems,
            ),
        }
    }
    headers
}

/// What the spans are said to come from. `OTEL_SERVICE_NAME` comes before what the attributes say.
fn resource(
    variables: &Variables<'_, impl Fn(&str) -> Option<String>>,
    problems: &mut Problems,
) -> Vec<(String, String)> {
    let mut resource = Vec::new();
    if let Some(variable) = variables.named("OTEL_RESOURCE_ATTRIBUTES") {
        for (place, pair) in pairs(&variable.value).enumerate() {
            match pair {
                Some(pair) => resource.push(pair),
                None => variable.problem(
                    format_args!("number {} of its attributes is not NAME=VALUE with percent-encoding", place + 1),
                    problems,
                ),
            }
        }
    }
    resource.extend(variables.named("OTEL_SERVICE_NAME").map(|is| ("service.name".to_owned(), is.value)));
    resource
}

fn sampler(variables: &Variables<'_, impl Fn(&str) -> Option<String>>, problems: &mut Problems) -> Sampler {
    /// Of the calls that a sampler with an argument may let through.
    const GIVEN: f64 = f64::NAN;
    let samplers = [
        ("always_on", (false, 1.0)),
        ("always_off", (false, 0.0)),
        ("traceidratio", (false, GIVEN)),
        ("parentbased_always_on", (true, 1.0)),
        ("parentbased_always_off", (true, 0.0)),
        ("parentbased_traceidratio", (true, GIVEN)),
    ];
    let named = variables.named("OTEL_TRACES_SAMPLER").and_then(|is| is.word(&samplers, problems));
    let Some((follows_parent, ratio)) = named else { return Sampler::default() };
    let ratio = match variables.named("OTEL_TRACES_SAMPLER_ARG").filter(|_| ratio.is_nan()) {
        Some(argument) => {
            let ratio = argument.value.parse().ok().filter(|ratio| (0.0..=1.0).contains(ratio));
            ratio.unwrap_or_else(|| {
                argument.must_be("a number from 0 to 1", problems);
                0.0
            })
        }
        // The specification's default.
        None if ratio.is_nan() => 1.0,
        None => ratio,
    };
    Sampler { follows_parent, ratio }
}

/// Nothing is passed on, so baggage is nothing to the gateway; and who gives ids in another form wants them understood.
fn heeds_callers(variable: &Variable, problems: &mut Problems) -> bool {
    let mut heeds = false;
    for name in variable.value.split(',').map(str::trim) {
        match name {
            "tracecontext" => heeds = true,
            "baggage" | "none" => {}
            _ => {
                variable.must_be("a list of tracecontext and baggage, or none", problems);
                break;
            }
        }
    }
    heeds
}

fn queue(variables: &Variables<'_, impl Fn(&str) -> Option<String>>, problems: &mut Problems) -> (usize, usize) {
    let mut spans = |name: &str| variables.named(name).map(|is| is.number(SPANS, problems) as usize);
    let queue = spans("OTEL_BSP_MAX_QUEUE_SIZE").unwrap_or(DEFAULT_QUEUE);
    let batch = spans("OTEL_BSP_MAX_EXPORT_BATCH_SIZE");
    if let Some(batch) = batch.filter(|batch| *batch > queue) {
        problems.add(format!(
            "OTEL_BSP_MAX_EXPORT_BATCH_SIZE: must be at most OTEL_BSP_MAX_QUEUE_SIZE, {queue}; got {batch}"
        ));
    }
    (queue, batch.unwrap_or(DEFAULT_BATCH).min(queue))
}

/// `key=value` between commas, the values percent-decoded; `None` for what is not one.
fn pairs(text: &str) -> impl Iterator<Item = Option<(String, String)>> {
    text.split(',').map(str::trim).filter(|pair| !pair.is_empty()).map(|pair| {
        let (key, value) = pair.split_once('=')?;
        let key = key.trim();
        (!key.is_empty()).then_some(())?;
        Some((percent_decoded(key)?, percent_decoded(value.trim())?))
    })
}

fn percent_decoded(text: &str) -> Option<String> {
    let mut parts = text.split('%');
    let mut bytes = parts.next()?.as_bytes().to_vec();
    for part in parts {
        let (digits, rest) = part.split_at_checked(2)?;
        // Else a sign would be taken for a digit.
        digits.bytes().all(|b| b.is_ascii_hexdigit()).then_some(())?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        bytes.extend_from_slice(rest.as_bytes());
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_from(environment: &[(&str, &str)]) -> (Option<TraceSettings>, Problems) {
        let mut problems = Problems::default();
        let look_up =
            |name: &str| environment.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        (read(&look_up, &mut problems), problems)
    }

    const COLLECTOR: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4317/");

    #[test]
    fn nothing_is_recorded_unless_the_environment_names_a_collector_or_asks_for_one() {
        for environment in [
            &[][..],
            &[("OTEL_EXPORTER_OTLP_ENDPOINT", "")],
            &[("OTEL_SERVICE_NAME", "jobs"), ("OTEL_TRACES_SAMPLER", "always_on")],
            &[COLLECTOR, ("OTEL_SDK_DISABLED", "true")],
            &[COLLECTOR, ("OTEL_TRACES_EXPORTER", "none")],
        ] {
            assert_eq!(read_from(environment), (None, Problems::default()), "{environment:?}");
        }
    }

    #[cfg(not(feature = "traces"))]
    #[test]
    fn a_collector_is_a_problem_for_a_binary_without_traces() {
        let (settings, problems) = read_from(&[COLLECTOR]);
        assert_eq!(settings, None);
        assert!(
            problems.to_string().contains("OTEL_EXPORTER_OTLP_ENDPOINT: this binary was built without"),
            "{problems}"
        );
    }

    #[cfg(feature = "traces")]
    mod built_in {
        use super::*;

        fn good(environment: &[(&str, &str)]) -> TraceSettings {
            let (settings, problems) = read_from(&[&[COLLECTOR], environment].concat());
            assert!(problems.is_empty(), "{problems}");
            settings.unwrap()
        }

        #[test]
        fn the_defaults_are_the_specifications() {
            assert_eq!(good(&[]), TraceSettings::new("http://collector:4317"));
            let (settings, problems) = read_from(&[("OTEL_TRACES_EXPORTER", "otlp")]);
            assert!(problems.is_empty());
            assert_eq!(settings, Some(TraceSettings::new("http://localhost:4317")));
        }

        #[test]
        fn every_variable_is_understood() {
            let settings = good(&[
                ("OTEL_SDK_DISABLED", "false"),
                ("OTEL_TRACES_EXPORTER", "otlp"),
                ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "https://elsewhere:1"),
                ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
                ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
                ("OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", "none"),
                ("OTEL_EXPORTER_OTLP_TIMEOUT", "2500"),
                ("OTEL_EXPORTER_OTLP_HEADERS", "Authorization=Basic%20abc%3D, x-tenant = one "),
                ("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=prod,service.name=a"),
                ("OTEL_SERVICE_NAME", "jobs"),
                ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"),
                ("OTEL_TRACES_SAMPLER_ARG", "0.25"),
                ("OTEL_PROPAGATORS", "baggage"),
                ("OTEL_BSP_SCHEDULE_DELAY", "100"),
                ("OTEL_BSP_MAX_QUEUE_SIZE", "64"),
            ]);
            let TraceSettings { endpoint, headers, gzip, timeout, resource, sampler, heeds_callers, .. } = &settings;
            assert_eq!((endpoint.as_str(), *gzip, *heeds_callers), ("https://elsewhere:1", false, false));
            assert_eq!(*timeout, Duration::from_millis(2500));
            assert_eq!(
                (headers["authorization"].as_bytes(), &headers["x-tenant"]),
                (&b"Basic abc="[..], &HeaderValue::from_static("one"))
            );
            assert!(headers.values().all(HeaderValue::is_sensitive));
            assert_eq!(resource.last().unwrap(), &("service.name".to_owned(), "jobs".to_owned()));
            assert_eq!(*sampler, Sampler { follows_parent: true, ratio: 0.25 });
            assert_eq!((settings.queue, settings.batch, settings.delay), (64, 64, Duration::from_millis(100)));
        }

        #[test]
        fn each_sampler_is_two_things() {
            for (name, follows_parent, ratio) in [
                ("always_on", false, 1.0),
                ("always_off", false, 0.0),
                ("traceidratio", false, 0.5),
                ("parentbased_always_on", true, 1.0),
                ("parentbased_always_off", true, 0.0),
                ("parentbased_traceidratio", true, 0.5),
            ] {
                let settings = good(&[("OTEL_TRACES_SAMPLER", name), ("OTEL_TRACES_SAMPLER_ARG", "0.5")]);
                assert_eq!(settings.sampler, Sampler { follows_parent, ratio }, "{name}");
            }
            let all = good(&[("OTEL_TRACES_SAMPLER", "traceidratio")]);
            assert_eq!(all.sampler, Sampler { follows_parent: false, ratio: 1.0 });
        }

        #[test]
        fn every_problem_is_found_and_none_shows_a_secret() {
            let (_, problems) = read_from(&[
                ("OTEL_SDK_DISABLED", "no"),
                ("OTEL_TRACES_EXPORTER", "zipkin"),
                ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://user:marked@collector:4317"),
                ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
                ("OTEL_EXPORTER_OTLP_COMPRESSION", "zstd"),
                ("OTEL_EXPORTER_OTLP_TIMEOUT", "10s"),
                ("OTEL_EXPORTER_OTLP_HEADERS", "marked,x=marked%zz,y=%ff,z z=marked"),
                ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/nowhere"),
                ("OTEL_EXPORTER_OTLP_CLIENT_KEY", "/marked"),
                ("OTEL_RESOURCE_ATTRIBUTES", "a=%+1,b"),
                ("OTEL_TRACES_SAMPLER", "traceidratio"),
                ("OTEL_TRACES_SAMPLER_ARG", "2"),
                ("OTEL_PROPAGATORS", "tracecontext,b3"),
                ("OTEL_BSP_SCHEDULE_DELAY", "0"),
                ("OTEL_BSP_MAX_QUEUE_SIZE", "10"),
                ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "11"),
            ]);
            let told = problems.to_string();
            assert!(!told.contains("marked"), "{told}");
            for problem in [
                "OTEL_SDK_DISABLED: must be true or false; got \"no\"",
                "OTEL_TRACES_EXPORTER: must be otlp or none; got \"zipkin\"",
                "OTEL_EXPORTER_OTLP_ENDPOINT: must be http://HOST:PORT or https://HOST:PORT",
                "OTEL_EXPORTER_OTLP_PROTOCOL: must be grpc; got \"http/protobuf\"",
                "OTEL_EXPORTER_OTLP_COMPRESSION: must be gzip or none; got \"zstd\"",
                "OTEL_EXPORTER_OTLP_TIMEOUT: must be a whole number from 1 to 3600000; got \"10s\"",
                "OTEL_EXPORTER_OTLP_HEADERS: number 1 of",
                "OTEL_EXPORTER_OTLP_HEADERS: number 2 of",
                "OTEL_EXPORTER_OTLP_HEADERS: number 3 of",
                "OTEL_EXPORTER_OTLP_HEADERS: number 4 of",
                "OTEL_EXPORTER_OTLP_CERTIFICATE: cannot read /nowhere",
                "OTEL_EXPORTER_OTLP_CLIENT_KEY: is not supported",
                "OTEL_RESOURCE_ATTRIBUTES: number 1 of",
                "OTEL_RESOURCE_ATTRIBUTES: number 2 of",
                "OTEL_TRACES_SAMPLER_ARG: must be a number from 0 to 1; got \"2\"",
                "OTEL_PROPAGATORS: must be a list of tracecontext and baggage, or none; got",
                "OTEL_BSP_SCHEDULE_DELAY: must be a whole number from 1 to 3600000; got \"0\"",
                "OTEL_BSP_MAX_EXPORT_BATCH_SIZE: must be at most OTEL_BSP_MAX_QUEUE_SIZE, 10; got 11",
            ] {
                assert!(told.contains(problem), "{problem} is missing in {told}");
            }
        }

        #[test]
        fn endpoints_that_grpc_cannot_use_are_problems() {
            for url in [
                "collector:4317",
                "http://",
                "http://collector:4317/v1/traces",
                "http://collector?x=1",
                "unix:///tmp/x",
                " ",
                "grpc://collector:4317",
                "http://collector:99999",
            ] {
                let (settings, problems) = read_from(&[("OTEL_EXPORTER_OTLP_ENDPOINT", url)]);
                assert!(settings.is_none() && !problems.is_empty(), "{url}");
            }
        }
    }
}
