//! A body that was refused is taken in and thrown away for a while, so that its sender gets to read why.
//!
//! A server that closes a connection on which bytes still come resets it, and the answer is lost on the way: the client sees a broken
//! pipe instead of "slow down". Not for a client that waits to be told to send (`Expect: 100-continue`): it reads the answer anyway.

use super::limits::{LINGER_BYTES, LINGER_TIME};
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::time::timeout;

/// A body that lingers when it is dropped before its end.
pub(super) struct Lingering<B: Body<Data = Bytes> + Send + Unpin + 'static> {
    /// None once it was read to its end.
    body: Option<B>,
    /// Whether the client sends it only when told to, and was not told yet.
    waits: bool,
}

impl<B: Body<Data = Bytes> + Send + Unpin + 'static> Lingering<B> {
    pub(super) fn new(body: B, head: &http::request::Parts) -> Self {
        Lingering { body: Some(body), waits: head.headers.contains_key(http::header::EXPECT) }
    }
}

impl<B: Body<Data = Bytes> + Send + Unpin + 'static> Body for Lingering<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        self.waits = false;
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let frame = std::task::ready!(Pin::new(body).poll_frame(context));
        if !matches!(frame, Some(Ok(_))) {
            self.body = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

impl<B: Body<Data = Bytes> + Send + Unpin + 'static> Drop for Lingering<B> {
    fn drop(&mut self) {
        let Some(mut body) = self.body.take().filter(|body| !self.waits && !body.is_end_stream()) else { return };
        // The connection is one of a bounded number, and stays so until this ends.
        tokio::spawn(timeout(LINGER_TIME, async move {
            let mut taken = 0;
            while let Some(Ok(frame)) = body.frame().await {
                taken += frame.data_ref().map_or(0, Bytes::len);
                if taken > LINGER_BYTES {
                    return;
                }
            }
        }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::StreamExt as _;
    use http_body_util::StreamBody;
    use std::convert::Infallible;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// A body of so many KiB, and how many of them were read.
    fn body(kib: usize, expects: bool) -> (Lingering<impl Body<Data = Bytes, Error = Infallible> + Send + Unpin>, Arc<AtomicUsize>) {
        let read = Arc::new(AtomicUsize::new(0));
        let counting = Arc::clone(&read);
        let frames = futures::stream::iter(0..kib).map(move |_| {
            counting.fetch_add(1, Ordering::SeqCst);
            Ok(Frame::data(Bytes::from_static(&[0; 1024])))
        });
        let request = http::Request::builder();
        let request = if expects { request.header("expect", "100-continue") } else { request };
        let (head, ()) = request.body(()).expect("a request").into_parts();
        (Lingering::new(StreamBody::new(frames), &head), read)
    }

    /// How much is read of a body that is refused after so many frames.
    async fn refused_after(frames: usize, kib: usize, expects: bool) -> usize {
        let (mut body, read) = body(kib, expects);
        for _ in 0..frames {
            body.frame().await.expect("one more").expect("fine");
        }
        drop(body);
        while Arc::strong_count(&read) > 1 {
            tokio::task::yield_now().await;
        }
        read.load(Ordering::SeqCst)
    }

    #[tokio::test]
    async fn what_is_refused_is_taken_in_within_bounds() {
        assert_eq!(refused_after(0, 100, false).await, 100);
        assert_eq!(refused_after(3, 100, false).await, 100);
        assert_eq!(refused_after(3, LINGER_BYTES / 1024 + 50, false).await, 3 + LINGER_BYTES / 1024 + 1, "not without end");
        assert_eq!(refused_after(0, 100, true).await, 0, "the client was not told to send");
        assert_eq!(refused_after(1, 100, true).await, 100, "it was");
    }
}
