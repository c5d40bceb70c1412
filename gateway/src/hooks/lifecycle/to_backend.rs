//! Telling a backend, by its hooks.

use std::{sync::Arc, time::Duration};

use super::{dropped, event::Fact, held::Told, in_order::Audience};
use crate::{
    client_headers::ClientHeaders,
    hooks::{Hook, HookError, backend::Backend},
};

/// See the module.
pub(super) struct ToBackend(pub Arc<Backend>);

impl Audience for ToBackend {
    async fn tell(&self, fact: &Fact) -> Told {
        match fact {
            Fact::Connected(event) => self.ask(event).await,
            Fact::Subscribed(event) => self.ask(event).await,
            Fact::Unsubscribed(event) => self.ask(event).await,
            Fact::Disconnected(event) => self.ask(event).await,
            Fact::Occupied(event) => self.ask(event).await,
            Fact::Vacated(event) => self.ask(event).await,
        }
    }
}

impl ToBackend {
    async fn ask<H: Hook>(&self, event: &H) -> Told {
        let backend = &self.0;
        match backend.ask(event, &ClientHeaders::default(), Duration::MAX).await {
            Ok(_) => Told::Taken,
            // It will never take it.
            Err(
                error @ (HookError::Refused { .. }
                | HookError::Unsayable { .. }
                | HookError::Failed { unwell: false, .. }),
            ) => {
                tracing::debug!(backend = backend.name(), hook = H::NAME, %error, "the backend does not want an event");
                dropped("refused", 1);
                Told::Taken
            }
            // Nothing was sent, and nothing would be of another event.
            Err(HookError::Busy { .. } | HookError::Open | HookError::Transport { sent: false, .. }) => {
                Told::Away
            }
            Err(
                HookError::Timeout { .. }
                | HookError::Transport { .. }
                | HookError::Failed { .. }
                | HookError::Garbage { .. },
            ) => Told::NotTaken,
        }
    }
}
