//! A response's body on its way through the plugins that change it. Nothing is asked of it before the client takes more.

use super::body::{Body, BodyError};
use crate::plugin::BodyFilter;
use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body as _, Frame, SizeHint};
use std::pin::Pin;
use std::task::{Context, Poll};

/// A body and its filters, in the order in which they run.
pub(super) struct Filtered {
    body: Body,
    filters: Vec<Box<dyn BodyFilter>>,
    /// Whether the body came to its end, and the filters said what follows.
    ended: bool,
    trailers: Option<HeaderMap>,
}

impl std::fmt::Debug for Filtered {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Filtered").finish_non_exhaustive()
    }
}

impl Filtered {
    pub(super) fn wrap(body: Body, filters: Vec<Box<dyn BodyFilter>>) -> Body {
        Body::Filtered(Box::new(Self {
            body,
            filters,
            ended: false,
            trailers: None,
        }))
    }

    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        loop {
            if self.ended {
                let trailers = self.trailers.take();
                return Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))));
            }
            let frame = match Pin::new(&mut self.body).poll_frame(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(error))),
                Poll::Ready(Some(Ok(frame))) => Some(frame),
                Poll::Ready(None) => None,
            };
            let data = match frame.map(Frame::into_data) {
                Some(Ok(data)) => self.data(data),
                Some(Err(frame)) => self.end(frame.into_trailers().ok()),
                None => self.end(None),
            };
            if !data.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(data))));
            }
        }
    }

    /// A part of the body. Of one whose length is known nobody asks for more than that: its end is at its last part.
    fn data(&mut self, data: Bytes) -> Bytes {
        let data = pass(&mut self.filters, data);
        if !self.body.is_end_stream() {
            return data;
        }
        let last = self.end(None);
        if last.is_empty() {
            return data;
        }
        [data, last].concat().into()
    }

    /// What follows the body: of each filter, through those after it.
    fn end(&mut self, mut trailers: Option<HeaderMap>) -> Bytes {
        self.ended = true;
        let mut last = BytesMut::new();
        for index in 0..self.filters.len() {
            let Some((filter, after)) = self.filters[index..].split_first_mut() else {
                break;
            };
            let data = pass(after, filter.end(&mut trailers));
            last.extend_from_slice(&data);
        }
        self.trailers = trailers;
        last.freeze()
    }

    pub(super) fn is_end_stream(&self) -> bool {
        self.ended && self.trailers.is_none()
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        if self.ended {
            return SizeHint::with_exact(0);
        }
        if self.filters.iter().all(|filter| filter.keeps_length()) {
            return self.body.size_hint();
        }
        SizeHint::default()
    }
}

fn pass(filters: &mut [Box<dyn BodyFilter>], mut data: Bytes) -> Bytes {
    for filter in filters {
        if data.is_empty() {
            break;
        }
        data = filter.data(data);
    }
    data
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;

    struct Mark(&'static str);

    impl BodyFilter for Mark {
        fn data(&mut self, data: Bytes) -> Bytes {
            [&data, self.0.as_bytes()].concat().into()
        }

        fn end(&mut self, trailers: &mut Option<HeaderMap>) -> Bytes {
            let value = http::HeaderValue::from_static("x");
            trailers.get_or_insert_default().append("x-mark", value);
            Bytes::from_static(b"!")
        }
    }

    #[tokio::test]
    async fn each_filter_sees_what_the_one_before_it_made() {
        let body = Body::Full(Some(Bytes::from_static(b"body")));
        let body = Filtered::wrap(body, vec![Box::new(Mark("1")), Box::new(Mark("2"))]);
        assert!(!body.is_end_stream() && body.size_hint().exact().is_none());
        let body = body.collect().await.unwrap();
        let marks = body.trailers().unwrap().get_all("x-mark").iter().count();
        assert_eq!((&body.to_bytes()[..], marks), (&b"body12!2!"[..], 2));
    }

    #[tokio::test]
    async fn an_empty_body_has_its_end_too() {
        let body = Filtered::wrap(Body::Empty, vec![Box::new(Mark("1"))]);
        let body = body.collect().await.unwrap();
        assert_eq!(&body.to_bytes()[..], b"!");
    }
}
