//! The transfer under way: a site moves the blobs of one task at a time.

use std::future::pending;

use tokio::task::JoinHandle;

use crate::session::Input;

/// At most one transfer. What one that was called off came to is never taken for what the next one came to.
#[derive(Debug, Default)]
pub(crate) struct Moving(Option<(JoinHandle<Input>, Input)>);

impl Moving {
    /// Calls off what is under way, and begins another transfer once that has let go of what it wrote. One that breaks down
    /// has come to `broken`.
    pub(crate) fn begin(&mut self, broken: Input, transfer: impl Future<Output = Input> + Send + 'static) {
        self.halt();
        let before = self.0.take();
        let transfer = tokio::spawn(async move {
            if let Some((before, _)) = before {
                // That it was called off is no news.
                let _ = before.await;
            }
            transfer.await
        });
        self.0 = Some((transfer, broken));
    }

    /// Calls off what is under way: its connection is gone.
    pub(crate) fn halt(&self) {
        if let Some((transfer, _)) = &self.0 {
            transfer.abort();
        }
    }

    /// What the transfer came to; waits for one if there is none.
    pub(crate) async fn end(&mut self) -> Input {
        if let Some((transfer, broken)) = &mut self.0 {
            let (ended, broken) = (transfer.await, broken.clone());
            self.0 = None;
            match ended {
                Ok(input) => return input,
                Err(error) if error.is_panic() => return broken,
                // One that was called off came to nothing.
                Err(_) => {}
            }
        }
        pending().await
    }
}

#[cfg(test)]
mod tests {
    use sheaf_common::message::TaskId;
    use tokio::sync::oneshot;

    use super::*;
    use crate::session::TransferFailure;

    fn uploaded(arrived: bool) -> Input {
        let task = TaskId { run: "hearts".parse().unwrap(), round: 1, attempt: 1 };
        Input::Uploaded(task, arrived.then_some(()).ok_or(TransferFailure::Lost))
    }

    #[tokio::test]
    async fn a_transfer_lets_go_before_the_next_one_begins() {
        let mut moving = Moving::default();
        let (held, mut freed) = oneshot::channel::<()>();
        let (sender, begun) = oneshot::channel();
        moving.begin(uploaded(false), async move {
            sender.send(()).unwrap();
            let _held = held;
            pending().await
        });
        begun.await.unwrap();
        moving.begin(uploaded(false), async move {
            assert!(matches!(freed.try_recv(), Err(oneshot::error::TryRecvError::Closed)));
            uploaded(true)
        });
        assert_eq!(moving.end().await, uploaded(true));
    }

    #[tokio::test]
    async fn what_became_of_a_transfer_is_not_taken_for_the_end_of_the_next() {
        let mut moving = Moving::default();
        let (sender, ended) = oneshot::channel();
        moving.begin(uploaded(false), async move {
            sender.send(()).unwrap();
            uploaded(false)
        });
        ended.await.unwrap();
        moving.begin(uploaded(false), async { uploaded(true) });
        assert_eq!(moving.end().await, uploaded(true));
    }

    #[tokio::test]
    async fn a_transfer_that_was_called_off_is_in_nobody_s_way() {
        let mut moving = Moving::default();
        moving.begin(uploaded(false), pending());
        moving.halt();
        moving.begin(uploaded(false), async { uploaded(true) });
        assert_eq!(moving.end().await, uploaded(true));
    }

    #[tokio::test]
    async fn a_transfer_that_breaks_down_is_not_waited_for() {
        let mut moving = Moving::default();
        moving.begin(uploaded(false), async { panic!("a defect") });
        assert_eq!(moving.end().await, uploaded(false));
    }
}
