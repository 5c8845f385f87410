//! Permits in a session: shown once, and again on every later link.

use super::carrier::Wire;
use super::link::unexpected;
use super::session::Session;
use crate::error::NetError;
use crate::permit::SignedPermit;
use crate::wire::message::{Reply, Request};

async fn present(link: &dyn Wire, permit: &SignedPermit) -> Result<(), NetError> {
    match link.call(&Request::Permit { permit: permit.as_bytes().to_vec() }).await? {
        Reply::Ok {} => Ok(()),
        _ => Err(unexpected("permit")),
    }
}

/// On a new link: a permit that has ended or was taken back meanwhile leaves what the others allow.
pub(super) async fn present_again(link: &dyn Wire, permits: &[SignedPermit]) -> Result<(), NetError> {
    for permit in permits {
        match present(link, permit).await {
            Err(error @ NetError::Refused { .. }) => {
                tracing::debug!(%error, "a permit is no longer in force");
            }
            shown => shown?,
        }
    }
    Ok(())
}

impl Session {
    /// Shows a permit whose holder's key was proven, now and on every later link: from then on the session may read and audit
    /// its client's deals, and make some if the permit says so. One for each client: a newer one replaces it.
    pub async fn present(&self, permit: SignedPermit) -> Result<(), NetError> {
        let timeout = self.inner.config.request_timeout;
        self.with_link(timeout, |link| {
            let permit = permit.clone();
            async move { present(link.as_ref(), &permit).await }
        })
        .await?;
        let mut permits = self.inner.permits.lock();
        permits.retain(|known| known.body().client != permit.body().client);
        permits.push(permit);
        Ok(())
    }
}
