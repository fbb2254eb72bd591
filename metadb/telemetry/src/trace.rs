//! Where the time of a sampled request went: spans, linked across processes by the W3C header `traceparent`.
//!
//! Nothing here costs anything until a [`Sink`] is installed, and then only what is sampled costs more than a comparison: a request that
//! is not sampled carries `None`. Spans are handed to the sink when they end; where it sends them is the binary's business.

use std::sync::OnceLock;
use tokio::time::Instant;

/// Takes spans that have ended, and decides which requests are followed.
pub trait Sink: Send + Sync {
    /// Random bits for ids.
    fn random(&self) -> u64;
    /// Whether a request that begins here is followed.
    fn samples(&self) -> bool;
    /// Takes a span. It must not block.
    fn take(&self, span: Finished);
}

static SINK: OnceLock<Box<dyn Sink>> = OnceLock::new();

/// From now on what is sampled is followed. Once per process.
///
/// # Errors
/// Gives the sink back if there is one already.
pub fn install(sink: Box<dyn Sink>) -> Result<(), Box<dyn Sink>> {
    SINK.set(sink)
}

/// A span that is over.
#[derive(Debug, Clone, PartialEq)]
pub struct Finished {
    /// Of which trace, and its own id.
    pub context: Context,
    /// The span that caused it; none: it is the first of its trace.
    pub parent: Option<u64>,
    /// What was done.
    pub name: &'static str,
    /// When it began.
    pub started: Instant,
    /// When it was over.
    pub ended: Instant,
    /// What it was about: bounded texts, never values or secrets.
    pub attributes: Vec<(&'static str, String)>,
    /// Why it failed, if it did.
    pub failure: Option<String>,
}

/// A place in a trace: what causes other spans.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Context {
    /// The trace; never 0.
    pub trace_id: u128,
    /// The span; never 0.
    pub span_id: u64,
}

/// The length of a `traceparent` of version 00.
const TRACEPARENT_BYTES: usize = 55;
/// The flag of a `traceparent` that says that its caller records the trace.
const SAMPLED: u8 = 1;

impl Context {
    /// What a caller's `traceparent` says; none if there is none, if it is malformed or not sampled, or if nobody takes spans here.
    #[must_use]
    pub fn parse(traceparent: &str) -> Option<Self> {
        if traceparent.len() < TRACEPARENT_BYTES || SINK.get().is_none() {
            return None;
        }
        parse(traceparent)
    }

    /// As it travels.
    #[must_use]
    pub fn traceparent(self) -> String {
        format!("00-{:032x}-{:016x}-{SAMPLED:02x}", self.trace_id, self.span_id)
    }

    /// Begins a span that this one causes.
    #[must_use]
    pub fn child(self, name: &'static str) -> Span {
        self.child_since(name, Instant::now())
    }

    /// Begins a span that this one causes, at a moment that is over.
    #[must_use]
    pub fn child_since(self, name: &'static str, started: Instant) -> Span {
        let random = SINK.get().map_or(1, |sink| sink.random());
        let context = Context { trace_id: self.trace_id, span_id: random.max(1) };
        Span { context, parent: Some(self.span_id), name, started, attributes: Vec::new(), failure: None }
    }

    /// Tells of something that this one caused and that is over.
    pub fn record(self, name: &'static str, started: Instant, ended: Instant, attributes: Vec<(&'static str, String)>) {
        let mut span = self.child_since(name, started);
        span.attributes = attributes;
        span.end(ended);
    }
}

fn parse(text: &str) -> Option<Context> {
    let mut parts = text.split('-');
    let hex = |part: Option<&str>, digits: usize| {
        let part = part.filter(|part| part.len() == digits && part.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)))?;
        u128::from_str_radix(part, 16).ok()
    };
    let version = hex(parts.next(), 2)?;
    let trace_id = hex(parts.next(), 32)?;
    let span_id = u64::try_from(hex(parts.next(), 16)?).ok()?;
    let flags = u8::try_from(hex(parts.next(), 2)?).ok()?;
    let known = version != 0xff && (version > 0 || parts.next().is_none());
    (known && trace_id != 0 && span_id != 0 && flags & SAMPLED != 0).then_some(Context { trace_id, span_id })
}

/// Something that is being done. Told when it is dropped.
#[derive(Debug)]
pub struct Span {
    context: Context,
    parent: Option<u64>,
    name: &'static str,
    started: Instant,
    attributes: Vec<(&'static str, String)>,
    failure: Option<String>,
}

/// Begins a trace, if this request is sampled.
#[must_use]
pub fn root(name: &'static str) -> Option<Span> {
    let sink = SINK.get()?;
    if !sink.samples() {
        return None;
    }
    let trace_id = (u128::from(sink.random()) << 64) | u128::from(sink.random().max(1));
    let context = Context { trace_id, span_id: sink.random().max(1) };
    Some(Span { context, parent: None, name, started: Instant::now(), attributes: Vec::new(), failure: None })
}

impl Span {
    /// What it causes refers to it by this.
    #[must_use]
    pub fn context(&self) -> Context {
        self.context
    }

    /// Adds what it is about.
    pub fn note(&mut self, name: &'static str, value: impl std::fmt::Display) {
        self.attributes.push((name, value.to_string()));
    }

    /// Notes that it failed.
    pub fn fail(&mut self, why: impl std::fmt::Display) {
        self.failure = Some(why.to_string());
    }

    fn end(&mut self, ended: Instant) {
        if let Some(sink) = SINK.get()
            && self.context.span_id != 0
        {
            let attributes = std::mem::take(&mut self.attributes);
            let (context, failure) = (self.context, self.failure.take());
            sink.take(Finished { context, parent: self.parent, name: self.name, started: self.started, ended, attributes, failure });
        }
        // Told once, though it is dropped after this.
        self.context.span_id = 0;
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        if self.context.span_id != 0 {
            self.end(Instant::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_traceparent_survives_its_text_and_nonsense_is_none() {
        let context = Context { trace_id: 0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c, span_id: 0xb7ad_6b71_6920_3331 };
        assert_eq!(context.traceparent(), "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
        assert_eq!(parse(&context.traceparent()), Some(context));
        for nonsense in [
            "",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-+af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
        ] {
            assert_eq!(parse(nonsense), None, "{nonsense}");
        }
        assert!(parse("01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more").is_some(), "a later version may say more");
    }

    #[test]
    fn without_a_sink_nothing_is_followed() {
        assert!(root("request").is_none());
        assert_eq!(Context::parse("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"), None);
    }
}
