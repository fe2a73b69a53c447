//! The UDP socket beneath QUIC, which takes long packets in numbers.
//!
//! quinn hands the kernel up to ten packets at a time, of which the kernel takes 64 KiB. More than that, which packets
//! beyond 6500 bytes come to, it refuses, and quinn takes that for a loss: here they go in several calls.

use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};

use crate::endpoint::MTU_MAX;

/// Bytes that the kernel takes in one call: the longest UDP payload.
const MOST: usize = 65_507;

/// A socket that takes as many packets as it is given.
#[derive(Debug)]
pub(crate) struct Batches(pub(crate) Arc<dyn AsyncUdpSocket>);

impl AsyncUdpSocket for Batches {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        self.0.clone().create_io_poller()
    }

    /// When the kernel takes only some now, all come again: to QUIC a packet that comes twice is none.
    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let packet = transmit.segment_size.unwrap_or(transmit.contents.len()).max(1);
        let packets = (MOST / packet).max(1);
        transmit.contents.chunks(packets * packet).try_for_each(|contents| {
            let segment_size = (contents.len() > packet).then_some(packet);
            self.0.try_send(&Transmit { contents, segment_size, ..*transmit })
        })
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        self.0.poll_recv(cx, bufs, meta)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.0.max_transmit_segments()
    }

    /// quinn keeps room for 32 times so many of the longest packets, 33 MB for as many as the kernel may hand over at once.
    /// But those are no more than [`MOST`] bytes together, however many they are.
    fn max_receive_segments(&self) -> usize {
        self.0.max_receive_segments().min(MOST.div_ceil(usize::from(MTU_MAX)))
    }

    fn may_fragment(&self) -> bool {
        self.0.may_fragment()
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::net::UdpSocket;
    use std::time::Duration;

    use quinn::{Runtime, TokioRuntime};

    use super::*;

    #[tokio::test]
    async fn packets_arrive_one_by_one_however_long_they_are_together() {
        let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
        receiver.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        let batches = Arc::new(Batches(TokioRuntime.wrap_udp_socket(sender).unwrap()));
        let mut poller = batches.clone().create_io_poller();
        let destination = receiver.local_addr().unwrap();
        // Alone, fewer than the kernel takes, more, and each by itself.
        for (packet, count, last) in [(900, 1, 900), (1200, 10, 7), (16_370, 5, 16_370), (MOST, 2, 1)] {
            if count > batches.max_transmit_segments() {
                continue;
            }
            let contents: Vec<u8> = (0..(count - 1) * packet + last).map(|i| (i / packet) as u8).collect();
            let segment_size = (count > 1).then_some(packet);
            let transmit =
                Transmit { destination, ecn: None, contents: &contents, segment_size, src_ip: None };
            poll_fn(|cx| poller.as_mut().poll_writable(cx)).await.unwrap();
            batches.try_send(&transmit).unwrap();
            let mut buffer = vec![0; MOST + 1];
            for number in 0..count {
                let length = receiver.recv(&mut buffer).unwrap();
                assert_eq!(length, if number + 1 < count { packet } else { last });
                assert!(buffer[..length].iter().all(|byte| usize::from(*byte) == number));
            }
        }
    }
}
