//! Fewer, larger reads and writes on the generator's connections, as a proxy has them.
//!
//! A response chunk is a few hundred bytes, and many are sent at once, on one stream or on several. Two things would make
//! each of them a TLS record and a system call, for the generator and for the picker that reads them:
//!
//! - h2 hands a frame of 256 bytes and more to a transport that takes slices at once, by itself and with a flush behind it;
//!   one that does not take slices gets frames under 1,024 bytes gathered in a buffer. So [`Coalescing`] says that it takes
//!   none. A large frame then comes as two writes, its head and its payload: the head is held back and leaves with the
//!   payload, in slices.
//! - rustls reads 4 KiB at a time. [`buffered`] puts larger reads below it.

use bytes::{Buf as _, BytesMut};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, BufReader, ReadBuf};

/// A write under this size waits for the next one, or the flush.
const HELD_BACK: usize = 1024;
/// Bytes of one read from the network.
const READ: usize = 64 * 1024;

/// `stream` with large reads.
pub fn buffered<S: AsyncRead>(stream: S) -> BufReader<S> {
    BufReader::with_capacity(READ, stream)
}

/// A transport whose small writes leave with the next large one, or when it is flushed.
#[derive(Debug)]
pub struct Coalescing<S> {
    inner: S,
    held: BytesMut,
}

impl<S> Coalescing<S> {
    /// Around `inner`.
    pub fn new(inner: S) -> Self {
        Self { inner, held: BytesMut::new() }
    }
}

impl<S: AsyncWrite + Unpin> Coalescing<S> {
    fn poll_write_held(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.held.is_empty() {
            let n = ready!(Pin::new(&mut self.inner).poll_write(cx, &self.held))?;
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.held.advance(n);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Coalescing<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Coalescing<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if bytes.len() + this.held.len() < HELD_BACK {
            this.held.extend_from_slice(bytes);
            return Poll::Ready(Ok(bytes.len()));
        }
        loop {
            if this.held.is_empty() {
                return Pin::new(&mut this.inner).poll_write(cx, bytes);
            }
            let slices = [IoSlice::new(&this.held), IoSlice::new(bytes)];
            let n = ready!(Pin::new(&mut this.inner).poll_write_vectored(cx, &slices))?;
            if n == 0 {
                return Poll::Ready(Ok(0));
            }
            let of_held = n.min(this.held.len());
            this.held.advance(of_held);
            if n > of_held {
                return Poll::Ready(Ok(n - of_held));
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_write_held(cx))?;
        Pin::new(&mut this.inner).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_write_held(cx))?;
        Pin::new(&mut this.inner).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    /// Takes up to `most` bytes of each write and remembers how large the writes were.
    #[derive(Debug)]
    struct Sink {
        most: usize,
        writes: Vec<usize>,
        bytes: Vec<u8>,
    }

    impl AsyncWrite for Sink {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            let this = self.get_mut();
            let n = bytes.len().min(this.most);
            this.bytes.extend_from_slice(&bytes[..n]);
            this.writes.push(n);
            Poll::Ready(Ok(n))
        }
        fn poll_write_vectored(
            self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            slices: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            let whole: Vec<u8> = slices.iter().flat_map(|s| s.iter().copied()).collect();
            self.poll_write(cx, &whole)
        }
        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    fn sink(most: usize) -> Coalescing<Sink> {
        Coalescing::new(Sink { most, writes: Vec::new(), bytes: Vec::new() })
    }

    #[tokio::test]
    async fn a_small_head_leaves_with_the_payload_behind_it() {
        let mut out = sink(usize::MAX);
        out.write_all(&[1; 9]).await.unwrap();
        assert!(out.inner.writes.is_empty());
        out.write_all(&[2; 16_384]).await.unwrap();
        assert_eq!(out.inner.writes, [16_393]);
    }

    #[tokio::test]
    async fn what_is_held_back_leaves_with_the_flush_and_at_the_end() {
        let mut out = sink(usize::MAX);
        out.write_all(&[1; 100]).await.unwrap();
        out.flush().await.unwrap();
        out.write_all(&[2; 50]).await.unwrap();
        out.shutdown().await.unwrap();
        assert_eq!(out.inner.writes, [100, 50]);
        assert!(!out.is_write_vectored());
    }

    #[tokio::test]
    async fn large_reads_bring_the_same_bytes() {
        let (mut near, far) = tokio::io::duplex(300_000);
        near.write_all(&[7; 200_000]).await.unwrap();
        drop(near);
        let mut read = Vec::new();
        buffered(far).read_to_end(&mut read).await.unwrap();
        assert_eq!(read, vec![7; 200_000]);
    }

    proptest! {
        #[test]
        fn bytes_arrive_whole_and_in_order(
            writes in prop::collection::vec((0_usize..3_000, any::<bool>()), 1..30),
            most in 1_usize..4_000,
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let (mut out, mut sent) = (sink(most), Vec::new());
            runtime.block_on(async {
                for (i, (length, flush)) in writes.into_iter().enumerate() {
                    let piece: Vec<u8> = (0..length).map(|at| (at + i) as u8).collect();
                    out.write_all(&piece).await.unwrap();
                    sent.extend_from_slice(&piece);
                    if flush {
                        out.flush().await.unwrap();
                        assert_eq!(out.inner.bytes, sent);
                    }
                }
                out.flush().await.unwrap();
            });
            prop_assert_eq!(out.inner.bytes, sent);
        }
    }
}
