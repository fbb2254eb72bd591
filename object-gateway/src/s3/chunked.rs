//! Bounds the memory of aws-chunked bodies, ahead of their decoder.
//!
//! The decoder holds a chunk until it has all of it. A signed chunk must be held to be verified, so its size is limited. An unsigned one
//! need not be: some SDKs send a body of gigabytes as one chunk. Those are cut here into chunks as small as they arrive, which says
//! the same. A body that ends before its last chunk is told as such (the decoder takes it for complete). Pure: bytes in, bytes out.

use super::limits::{CHUNK_LINE_BYTES, SIGNED_CHUNK_BYTES};
use bytes::{Bytes, BytesMut};
use futures::Stream;
use s3s::StdError;
use std::pin::Pin;
use std::task::{Context, Poll};

/// How a malformed body is told.
pub(crate) const FORMAT: &str = "the body is not well-formed aws-chunked";
/// How a chunk that is too large is told.
pub(crate) const SIGNED_TOO_LARGE: &str = "a signed chunk is too large";

/// Why a body is refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ChunkedError {
    #[error("the aws-chunked body ends before its last chunk")]
    Incomplete,
    #[error("{SIGNED_TOO_LARGE}: {0} bytes, at most {max} are accepted", max = SIGNED_CHUNK_BYTES)]
    SignedChunkTooLarge(u64),
    #[error("{FORMAT}")]
    Format,
    #[error("the body broke off: {0}")]
    Body(StdError),
}

enum State {
    /// Collecting the line that tells a chunk's size.
    Line(BytesMut),
    /// Within a chunk's data: so many bytes are to come.
    Data(u64),
    /// Behind a chunk's data: so many bytes of CR LF are to come.
    DataEnd(u8),
    /// Behind the chunk of size 0: trailers, passed on as they are.
    Trailer,
}

/// Cuts what can be cut and limits what can't.
pub(crate) struct Reframer {
    signed: bool,
    state: State,
}

impl Reframer {
    pub(crate) fn new(signed: bool) -> Self {
        Reframer { signed, state: State::Line(BytesMut::new()) }
    }

    /// Takes bytes of the body, appends what the decoder gets to see.
    pub(crate) fn push(&mut self, mut input: Bytes, out: &mut BytesMut) -> Result<(), ChunkedError> {
        while !input.is_empty() {
            match &mut self.state {
                State::Line(line) => {
                    let end = input.iter().position(|b| *b == b'\n');
                    line.extend_from_slice(&input.split_to(end.map_or(input.len(), |at| at + 1)));
                    if line.len() > CHUNK_LINE_BYTES {
                        return Err(ChunkedError::Format);
                    }
                    if end.is_some() {
                        let line = std::mem::take(line);
                        self.state = self.begin(&line, out)?;
                    }
                }
                State::Data(left) => {
                    let take = usize::try_from(*left).unwrap_or(usize::MAX).min(input.len());
                    let data = input.split_to(take);
                    *left -= take as u64;
                    let done = *left == 0;
                    if !self.signed {
                        out.extend_from_slice(format!("{take:x}\r\n").as_bytes());
                    }
                    out.extend_from_slice(&data);
                    if !self.signed {
                        out.extend_from_slice(b"\r\n");
                    }
                    if done {
                        self.state = State::DataEnd(2);
                    }
                }
                State::DataEnd(left) => {
                    let expected = if *left == 2 { b'\r' } else { b'\n' };
                    if input.split_to(1)[0] != expected {
                        return Err(ChunkedError::Format);
                    }
                    if self.signed {
                        out.extend_from_slice(&[expected]);
                    }
                    *left -= 1;
                    if *left == 0 {
                        self.state = State::Line(BytesMut::new());
                    }
                }
                State::Trailer => out.extend_from_slice(&input.split_to(input.len())),
            }
        }
        Ok(())
    }

    fn begin(&self, line: &[u8], out: &mut BytesMut) -> Result<State, ChunkedError> {
        let text = std::str::from_utf8(line).ok().and_then(|line| line.strip_suffix("\r\n")).ok_or(ChunkedError::Format)?;
        let digits = text.split(';').next().unwrap_or_default();
        if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(ChunkedError::Format);
        }
        let size = u64::from_str_radix(digits, 16).map_err(|_| ChunkedError::Format)?;
        if self.signed && size > SIGNED_CHUNK_BYTES {
            return Err(ChunkedError::SignedChunkTooLarge(size));
        }
        if self.signed || size == 0 {
            out.extend_from_slice(line);
        }
        Ok(if size == 0 { State::Trailer } else { State::Data(size) })
    }

    /// The body ended here.
    pub(crate) fn end(&self) -> Result<(), ChunkedError> {
        match self.state {
            State::Trailer => Ok(()),
            State::Line(_) | State::Data(_) | State::DataEnd(_) => Err(ChunkedError::Incomplete),
        }
    }
}

/// A body that goes through a [`Reframer`].
pub(crate) struct ReframedBody<S> {
    inner: S,
    reframer: Reframer,
    done: bool,
}

impl<S> ReframedBody<S> {
    pub(crate) fn new(inner: S, signed: bool) -> Self {
        ReframedBody { inner, reframer: Reframer::new(signed), done: false }
    }
}

impl<S: Stream<Item = Result<Bytes, StdError>> + Unpin> Stream for ReframedBody<S> {
    type Item = Result<Bytes, StdError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        while !self.done {
            let mut out = BytesMut::new();
            let result = match std::task::ready!(Pin::new(&mut self.inner).poll_next(cx)) {
                Some(Ok(bytes)) => self.reframer.push(bytes, &mut out),
                Some(Err(error)) => Err(ChunkedError::Body(error)),
                None => {
                    self.done = true;
                    self.reframer.end()
                }
            };
            if let Err(error) = result {
                self.done = true;
                return Poll::Ready(Some(Err(Box::new(error))));
            }
            if !out.is_empty() {
                return Poll::Ready(Some(Ok(out.freeze())));
            }
        }
        Poll::Ready(None)
    }
}

impl<S: Stream<Item = Result<Bytes, StdError>> + Unpin> s3s::stream::ByteStream for ReframedBody<S> {}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn run(signed: bool, body: &[u8], step: usize) -> Result<Vec<u8>, ChunkedError> {
        let (mut reframer, mut out) = (Reframer::new(signed), BytesMut::new());
        for piece in body.chunks(step.max(1)) {
            reframer.push(Bytes::copy_from_slice(piece), &mut out)?;
        }
        reframer.end().map(|()| out.to_vec())
    }

    /// What an aws-chunked body says, and its trailer.
    fn decode(mut body: &[u8]) -> (Vec<u8>, Vec<u8>) {
        let mut data = Vec::new();
        loop {
            let line_end = body.windows(2).position(|w| w == b"\r\n").expect("a line");
            let size = usize::from_str_radix(std::str::from_utf8(&body[..line_end]).expect("text").split(';').next().expect("one"), 16)
                .expect("hex");
            body = &body[line_end + 2..];
            if size == 0 {
                return (data, body.to_vec());
            }
            data.extend_from_slice(&body[..size]);
            assert_eq!(&body[size..size + 2], b"\r\n");
            body = &body[size + 2..];
        }
    }

    proptest! {
        #[test]
        fn unsigned_bodies_say_the_same_in_smaller_chunks(data in proptest::collection::vec(any::<u8>(), 0..300), step in 1usize..40) {
            let mut body = Vec::new();
            if !data.is_empty() {
                body.extend_from_slice(format!("{:X}\r\n", data.len()).as_bytes());
                body.extend_from_slice(&data);
                body.extend_from_slice(b"\r\n");
            }
            body.extend_from_slice(b"0\r\nx-amz-checksum-crc32:AAAA\r\n\r\n");
            let out = run(false, &body, step).expect("well formed");
            prop_assert_eq!(decode(&out), (data, b"x-amz-checksum-crc32:AAAA\r\n\r\n".to_vec()));
            for cut in 0..body.len().saturating_sub(32) {
                prop_assert!(matches!(run(false, &body[..cut], step), Err(ChunkedError::Incomplete)));
            }
        }
    }

    #[test]
    fn signed_bodies_pass_unchanged_within_their_limit() {
        let signature = "a".repeat(64);
        let body = format!("5;chunk-signature={signature}\r\nhello\r\n0;chunk-signature={signature}\r\n\r\n");
        for step in [1, 7, 1000] {
            assert_eq!(run(true, body.as_bytes(), step).expect("well formed"), body.as_bytes());
        }
        let huge = format!("40000000;chunk-signature={signature}\r\n");
        assert!(matches!(run(true, huge.as_bytes(), 9), Err(ChunkedError::SignedChunkTooLarge(0x4000_0000))));
    }

    #[test]
    fn nonsense_is_refused() {
        for body in ["hello\r\n", "\r\n", "5\nhello\r\n", "5\r\nhelloXX", "-5\r\n", "+5\r\nhello\r\n", "fffffffffffffffffff\r\n"] {
            assert!(matches!(run(false, body.as_bytes(), 3), Err(ChunkedError::Format)), "{body:?}");
        }
        assert!(matches!(run(false, "1".repeat(2000).as_bytes(), 100), Err(ChunkedError::Format)));
    }
}
