//! Who may call: everybody on a loopback port without a token, else those who show it.

use tonic::{Request, Status, service::Interceptor};

/// Checks the `authorization` metadata of every call.
#[derive(Clone)]
pub(super) struct Auth {
    token: Option<String>,
}

impl Auth {
    pub(super) fn new(token: Option<String>) -> Self {
        Self { token }
    }

    fn admits(&self, shown: Option<&str>) -> bool {
        match &self.token {
            None => true,
            Some(token) => shown.and_then(|s| s.strip_prefix("Bearer ")).is_some_and(|s| equal(s, token)),
        }
    }
}

/// Compares hashes, so that the time taken tells nothing about the secret.
fn equal(a: &str, b: &str) -> bool {
    conun_types::identity::keccak256(a.as_bytes()) == conun_types::identity::keccak256(b.as_bytes())
}

impl Interceptor for Auth {
    fn call(&mut self, request: Request<()>) -> Result<Request<()>, Status> {
        let shown = request.metadata().get("authorization").and_then(|v| v.to_str().ok());
        if self.admits(shown) { Ok(request) } else { Err(Status::unauthenticated("no or wrong token")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_must_be_shown_where_there_is_one() {
        let open = Auth::new(None);
        assert!(open.admits(None) && open.admits(Some("Bearer x")));
        let closed = Auth::new(Some("secret".into()));
        assert!(closed.admits(Some("Bearer secret")));
        for shown in [None, Some("secret"), Some("Bearer secre"), Some("Bearer secrets"), Some("Basic secret")] {
            assert!(!closed.admits(shown), "{shown:?}");
        }
    }
}
