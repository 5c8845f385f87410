//! What a trustless gateway answers.
//!
//! A raw block whole, in part, or only its head; a CAR as a stream, block by block, as its graph is walked. A CAR that cannot be
//! gone on with (a block is missing or damaged) breaks the connection off, so that nobody takes it for whole.

use std::cell::RefCell;
use std::collections::HashSet;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use cid::Cid;
use holdfast_content::block::{Block, as_v1};
use holdfast_content::plain::car::{header, write_section};
use holdfast_content::plain::node::Node;
use holdfast_content::plain::walk::{Resolved, resolve, visit_directory, visit_file};
use holdfast_content::plain::{Blocks, PlainError, load};
use holdfast_net::bitswap::PublicBlocks;
use http_body_util::{BodyExt, Empty, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::Frame;
use hyper::header::{self as names, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::PublicIndex;
use super::request::{Form, Question, Refusal, Scope, byte_range, parse};

pub(super) type Body = UnsyncBoxBody<Bytes, io::Error>;

/// Parts of a CAR between the disk and the connection.
const PARTS_MAX: usize = 4;
const KIND_RAW: &str = "application/vnd.ipld.raw";
const KIND_CAR: &str = "application/vnd.ipld.car; version=1; order=dfs; dups=n";
/// What a CID names does not change.
const FOR_EVER: &str = "public, max-age=29030400, immutable";

/// What requests share.
pub(super) struct Shared {
    pub(super) index: PublicIndex,
    /// Blocks that are read at once.
    pub(super) reads: Arc<Semaphore>,
    /// CARs on their way.
    pub(super) cars: Arc<Semaphore>,
}

fn empty() -> Body {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

fn whole(bytes: Bytes) -> Body {
    Full::new(bytes).map_err(|never| match never {}).boxed_unsync()
}

fn answer(status: StatusCode, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    // Web pages may ask: there is nothing here but what anybody may have.
    headers.insert(names::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    headers.insert(names::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

fn refuse(refusal: Refusal) -> Response<Body> {
    let status = StatusCode::from_u16(refusal.status).unwrap_or(StatusCode::BAD_REQUEST);
    let mut response = answer(status, whole(Bytes::from(refusal.text + "\n")));
    let headers = response.headers_mut();
    headers.insert(names::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    if status == StatusCode::METHOD_NOT_ALLOWED {
        headers.insert(names::ALLOW, HeaderValue::from_static("GET, HEAD, OPTIONS"));
    }
    if status == StatusCode::SERVICE_UNAVAILABLE {
        headers.insert(names::RETRY_AFTER, HeaderValue::from_static("5"));
    }
    response
}

/// One request.
pub(super) async fn respond<B>(shared: Arc<Shared>, request: Request<B>) -> Response<Body> {
    let (request, _) = request.into_parts();
    match request.method {
        Method::GET | Method::HEAD => {}
        Method::OPTIONS => {
            let mut response = answer(StatusCode::NO_CONTENT, empty());
            let allowed = HeaderValue::from_static("GET, HEAD, OPTIONS");
            response.headers_mut().insert(names::ACCESS_CONTROL_ALLOW_METHODS, allowed);
            let allowed = HeaderValue::from_static("Range, If-None-Match, Accept");
            response.headers_mut().insert(names::ACCESS_CONTROL_ALLOW_HEADERS, allowed);
            return response;
        }
        _ => return refuse(Refusal::new(405, "GET and HEAD are all there is")),
    }
    let headers = &request.headers;
    let accept: Vec<&str> = headers.get_all(names::ACCEPT).iter().filter_map(|v| v.to_str().ok()).collect();
    let url = request.uri.path_and_query().map_or("", |url| url.as_str());
    let question = match parse(url, &accept) {
        Ok(question) => question,
        Err(refusal) => return refuse(refusal),
    };
    let head_only = request.method == Method::HEAD;
    let answered = match question.form.clone() {
        Form::Raw => raw(&shared, &question, headers, head_only).await,
        Form::Car(scope) => car(&shared, question, scope, headers, head_only).await,
    };
    answered.unwrap_or_else(refuse)
}

fn put(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

/// Whether the client has it already.
fn is_known(headers: &HeaderMap, etag: &str) -> bool {
    let known = headers.get_all(names::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    known.flat_map(|value| value.split(',')).map(str::trim).any(|known| {
        let bare = |tag: &str| tag.strip_prefix("W/").unwrap_or(tag).to_owned();
        known == "*" || bare(known) == bare(etag)
    })
}

fn not_modified(etag: &str) -> Response<Body> {
    let mut response = answer(StatusCode::NOT_MODIFIED, empty());
    put(response.headers_mut(), names::ETAG, etag);
    put(response.headers_mut(), names::CACHE_CONTROL, FOR_EVER);
    response
}

fn not_found(cid: &Cid) -> Refusal {
    Refusal::new(404, format!("{cid} is not here"))
}

async fn len_of(index: &PublicIndex, cid: &Cid) -> Option<u32> {
    if let Some(len) = index.len_of(cid) {
        return Some(len);
    }
    index.settled().await;
    index.len_of(cid)
}

async fn raw(
    shared: &Arc<Shared>,
    question: &Question,
    headers: &HeaderMap,
    head_only: bool,
) -> Result<Response<Body>, Refusal> {
    let cid = question.root;
    let etag = format!("\"{cid}.raw\"");
    let inline = (cid.hash().code() == 0).then(|| Bytes::copy_from_slice(cid.hash().digest()));
    let size = match &inline {
        Some(bytes) => bytes.len() as u64,
        None => len_of(&shared.index, &cid).await.ok_or_else(|| not_found(&cid))?.into(),
    };
    if is_known(headers, &etag) {
        return Ok(not_modified(&etag));
    }
    let asked = headers.get(names::RANGE).and_then(|value| value.to_str().ok());
    let asked = asked.and_then(|header| byte_range(header, size));
    if asked == Some(None) {
        let mut response = refuse(Refusal::new(416, "the range lies outside of the block"));
        put(response.headers_mut(), names::CONTENT_RANGE, &format!("bytes */{size}"));
        return Ok(response);
    }
    let range = asked.flatten();
    let bytes = match inline {
        _ if head_only => None,
        Some(bytes) => Some(bytes),
        None => Some(read(shared, cid).await?),
    };
    let part = range.clone().unwrap_or(0..size);
    let status = if range.is_some() { StatusCode::PARTIAL_CONTENT } else { StatusCode::OK };
    // A block has at most 2 MiB.
    let body = bytes.map_or_else(empty, |bytes| whole(bytes.slice(part.start as usize..part.end as usize)));
    let mut response = answer(status, body);
    let headers = response.headers_mut();
    put(headers, names::CONTENT_TYPE, KIND_RAW);
    put(headers, names::CONTENT_LENGTH, &(part.end - part.start).to_string());
    put(headers, names::ETAG, &etag);
    put(headers, names::CACHE_CONTROL, FOR_EVER);
    put(headers, names::ACCEPT_RANGES, "bytes");
    put(headers, names::CONTENT_DISPOSITION, &format!("attachment; filename=\"{cid}.bin\""));
    if let Some(range) = range {
        put(headers, names::CONTENT_RANGE, &format!("bytes {}-{}/{size}", range.start, range.end - 1));
    }
    Ok(response)
}

async fn read(shared: &Arc<Shared>, cid: Cid) -> Result<Bytes, Refusal> {
    let busy = || Refusal::new(503, "this provider is going down");
    let _turn = shared.reads.acquire().await.map_err(|_| busy())?;
    let index = shared.index.clone();
    let read = tokio::task::spawn_blocking(move || index.get(&cid)).await;
    read.map_err(|_| busy())?.ok_or_else(|| not_found(&cid))
}

async fn car(
    shared: &Arc<Shared>,
    question: Question,
    scope: Scope,
    headers: &HeaderMap,
    head_only: bool,
) -> Result<Response<Body>, Refusal> {
    let root = question.root;
    let asked = blake3::hash(format!("{:?} {scope:?}", question.path).as_bytes()).to_hex();
    let etag = format!("W/\"{root}.car.{}\"", asked.get(..16).unwrap_or_default());
    let busy = || Refusal::new(503, "too many CARs are on their way");
    let turn = shared.cars.clone().try_acquire_owned().map_err(|_| busy())?;
    let (index, path) = (shared.index.clone(), question.path.clone());
    let resolved = tokio::task::spawn_blocking(move || {
        let resolved = resolve(&index, &root, path.iter().map(String::as_str))?;
        // What is not here is said before anything is sent.
        load(&index, &resolved.cid).map(|node| (resolved, node))
    });
    let (resolved, node) = resolved.await.map_err(|_| busy())?.map_err(|error| match error {
        PlainError::Missing(cid) => not_found(&cid),
        PlainError::Block(_) => not_found(&root),
        PlainError::NotFound(_) | PlainError::NotDirectory(_) => Refusal::new(404, error.to_string()),
        error => Refusal::new(502, error.to_string()),
    })?;
    if is_known(headers, &etag) {
        return Ok(not_modified(&etag));
    }
    let body = match head_only {
        true => empty(),
        false => stream(shared, resolved, node, scope, turn),
    };
    let mut response = answer(StatusCode::OK, body);
    let headers = response.headers_mut();
    put(headers, names::CONTENT_TYPE, KIND_CAR);
    put(headers, names::ETAG, &etag);
    put(headers, names::CACHE_CONTROL, FOR_EVER);
    put(headers, names::ACCEPT_RANGES, "none");
    put(headers, names::CONTENT_DISPOSITION, &format!("attachment; filename=\"{root}.car\""));
    Ok(response)
}

/// Walks on a thread that may block, and sends what it meets.
fn stream(
    shared: &Arc<Shared>,
    resolved: Resolved,
    node: Node,
    scope: Scope,
    turn: OwnedSemaphorePermit,
) -> Body {
    let (parts, mut incoming) = mpsc::channel::<Result<Bytes, io::Error>>(PARTS_MAX);
    let index = shared.index.clone();
    tokio::task::spawn_blocking(move || {
        let mut writer = CarWriter { index: &index, sent: HashSet::new(), parts: &parts };
        if let Err(error) = writer.write(&resolved, node, &scope) {
            tracing::debug!(%error, "a CAR was broken off");
            let _ = parts.blocking_send(Err(io::Error::other(error.to_string())));
        }
        drop(turn);
    });
    let frames = futures::stream::poll_fn(move |context| {
        incoming.poll_recv(context).map(|part| part.map(|part| part.map(Frame::data)))
    });
    StreamBody::new(frames).boxed_unsync()
}

struct CarWriter<'a> {
    index: &'a PublicIndex,
    sent: HashSet<Cid>,
    parts: &'a mpsc::Sender<Result<Bytes, io::Error>>,
}

impl CarWriter<'_> {
    fn send(&self, bytes: Vec<u8>) -> Result<(), PlainError> {
        let gone = |_| PlainError::Other(Box::new(io::Error::from(io::ErrorKind::BrokenPipe)));
        self.parts.blocking_send(Ok(Bytes::from(bytes))).map_err(gone)
    }

    /// A block under the CID that names it in its graph, if it was not sent yet. Gives it only then.
    fn emit(&mut self, cid: &Cid) -> Result<Option<Block>, PlainError> {
        if cid.hash().code() == 0 {
            return Ok(None);
        }
        let v1 = as_v1(cid)?;
        if !self.sent.insert(v1) {
            return Ok(None);
        }
        let block = self.index.block(&v1)?;
        let mut section = Vec::with_capacity(block.len() as usize + 64);
        write_section(&mut section, cid, &block).map_err(|error| PlainError::Other(Box::new(error)))?;
        self.send(section)?;
        Ok(Some(block))
    }

    fn write(&mut self, resolved: &Resolved, node: Node, scope: &Scope) -> Result<(), PlainError> {
        self.send(header(&[resolved.cid]))?;
        for cid in &resolved.way {
            self.emit(cid)?;
        }
        match scope {
            Scope::Block => self.emit(&resolved.cid).map(drop),
            Scope::All => self.all(&resolved.cid),
            Scope::Entity(span) => {
                self.emit(&resolved.cid)?;
                self.entity(&resolved.cid, node, *span)
            }
        }
    }

    /// Everything below, depth first.
    fn all(&mut self, root: &Cid) -> Result<(), PlainError> {
        let mut todo = vec![*root];
        while let Some(cid) = todo.pop() {
            let node = match self.emit(&cid)? {
                Some(block) => Node::decode(&cid, block.into_bytes())?,
                None => continue,
            };
            todo.extend(node.links().into_iter().rev());
        }
        Ok(())
    }

    fn entity(
        &mut self,
        cid: &Cid,
        node: Node,
        span: Option<super::request::ByteSpan>,
    ) -> Result<(), PlainError> {
        let index = self.index;
        // The walk tells what it meets, and cannot be told anything: what failed is remembered for its next step.
        let failed = RefCell::new(None);
        let mut seen = |cid: &Cid| {
            let mut failed = failed.borrow_mut();
            if failed.is_none() {
                *failed = self.emit(cid).err();
            }
        };
        let so_far = || failed.borrow_mut().take().map_or(Ok(()), Err);
        match node {
            Node::Symlink { .. } => {}
            Node::File { size, .. } => {
                let range = span.map_or(0..size, |span| span.range(size));
                visit_file(index, cid, node, range, &mut seen, &mut |_| so_far())?;
            }
            node => visit_directory(index, cid, node, &mut seen, &mut |_, _| so_far())?,
        }
        so_far()
    }
}
