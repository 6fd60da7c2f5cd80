//! Ctrl-C: the first asks for a clean end, the second does not wait for it.

use std::sync::OnceLock;

use gradix::scan::CancelToken;

use crate::failure::{Failure, Result};

/// The token that Ctrl-C (SIGINT, SIGTERM, SIGHUP) cancels. The first call installs the handler.
pub fn token() -> Result<CancelToken> {
    static TOKEN: OnceLock<CancelToken> = OnceLock::new();
    if let Some(token) = TOKEN.get() {
        return Ok(token.clone());
    }
    let token = TOKEN.get_or_init(CancelToken::new).clone();
    let handler = {
        let token = token.clone();
        move || {
            if token.is_cancelled() {
                // An index does not mind: it is left as a kill leaves it, and the next writer clears up.
                std::process::exit(130);
            }
            token.cancel();
        }
    };
    ctrlc::set_handler(handler).map_err(|error| Failure::Io {
        what: "handle Ctrl-C".into(),
        source: std::io::Error::other(error),
    })?;
    Ok(token)
}

/// Fails if the token is cancelled.
pub fn check(cancel: &CancelToken) -> Result {
    if cancel.is_cancelled() { Err(Failure::Interrupted("interrupted".into())) } else { Ok(()) }
}
