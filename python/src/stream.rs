//! What the engine passes on piece by piece, as an iterator of Python.

use std::ops::ControlFlow;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use gradix::{CancelToken, Error};
use pyo3::prelude::*;

use crate::errors::OrRaise as _;
use crate::work::{TICK, with_threads};

/// The pieces that wait for the reader.
const AHEAD: usize = 2;

/// Pieces that a thread makes while they are read; dropping it ends the thread.
pub struct Stream<T> {
    pieces: Mutex<Option<Receiver<Result<T, Error>>>>,
    token: CancelToken,
    maker: Option<JoinHandle<()>>,
}

impl<T: Send + 'static> Stream<T> {
    /// Starts `make`, which passes pieces on until it is told to break.
    pub fn start<E: Into<Error> + Send>(
        make: impl FnOnce(&CancelToken, &mut (dyn FnMut(T) -> ControlFlow<()> + Send)) -> Result<(), E>
        + Send
        + 'static,
    ) -> PyResult<Self> {
        let (sender, pieces) = sync_channel(AHEAD);
        let token = CancelToken::new();
        let of_maker = token.clone();
        let maker = thread::Builder::new().name("gradix".into()).spawn(move || {
            let mut pass = |piece| match sender.send(Ok(piece)) {
                Ok(()) => ControlFlow::Continue(()),
                Err(_) => ControlFlow::Break(()),
            };
            if let Err(error) = with_threads(|| make(&of_maker, &mut pass)) {
                // If nobody reads any more, nobody wants to know.
                let _ = sender.send(Err(error));
            }
        })?;
        Ok(Self { pieces: Mutex::new(Some(pieces)), token, maker: Some(maker) })
    }

    /// The next piece; `None` at the end, and after an error. Signals are looked for while it waits.
    pub fn next(&self, py: Python<'_>) -> PyResult<Option<T>> {
        loop {
            let received = py.detach(|| {
                let mut pieces = self.pieces.lock().unwrap_or_else(PoisonError::into_inner);
                let received = match &*pieces {
                    Some(open) => open.recv_timeout(TICK),
                    None => Err(RecvTimeoutError::Disconnected),
                };
                if !matches!(received, Ok(Ok(_)) | Err(RecvTimeoutError::Timeout)) {
                    *pieces = None;
                }
                received
            });
            match received {
                Ok(piece) => return piece.or_raise().map(Some),
                Err(RecvTimeoutError::Disconnected) => return Ok(None),
                Err(RecvTimeoutError::Timeout) => py.check_signals()?,
            }
        }
    }
}

impl<T> Drop for Stream<T> {
    fn drop(&mut self) {
        self.token.cancel();
        // A maker that waits for its piece to be taken finds that nobody does.
        *self.pieces.get_mut().unwrap_or_else(PoisonError::into_inner) = None;
        if let Some(maker) = self.maker.take() {
            // It ends within milliseconds, and needs nothing of Python. If it panicked, that was shown.
            let _ = maker.join();
        }
    }
}
