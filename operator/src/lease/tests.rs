use super::*;
use futures::future::BoxFuture;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

/// An API server with one Lease, as one replica reaches it.
#[derive(Clone, Default)]
struct Road {
    lease: Arc<Mutex<Option<Lease>>>,
    is_cut: Arc<AtomicBool>,
}

impl Road {
    /// Another replica's way to the same Lease.
    fn another(&self) -> Self {
        Self { lease: self.lease.clone(), is_cut: Arc::default() }
    }

    fn cut(&self, is_cut: bool) {
        self.is_cut.store(is_cut, Ordering::Relaxed);
    }

    fn holder(&self) -> Option<String> {
        holder(self.lease.lock().expect("nobody panics").as_ref()?).map(str::to_owned)
    }

    fn transitions(&self) -> Option<i32> {
        self.lease.lock().expect("nobody panics").as_ref()?.spec.as_ref()?.lease_transitions
    }

    /// A request that is on its way when the road is cut arrives when it is mended.
    async fn travel(&self) {
        while self.is_cut.load(Ordering::Relaxed) {
            sleep(Duration::from_millis(100)).await;
        }
    }

    fn store(&self, lease: Lease, seen: Option<&str>) -> Result<Lease, StoreError> {
        let mut place = self.lease.lock().expect("nobody panics");
        let there = place.as_ref().and_then(|lease| lease.metadata.resource_version.clone());
        if there.as_deref() != seen {
            return Err(StoreError::Conflict);
        }
        let next = seen.and_then(|seen| seen.parse::<u64>().ok()).unwrap_or_default() + 1;
        let metadata = ObjectMeta { resource_version: Some(next.to_string()), ..lease.metadata };
        Ok(place.insert(Lease { metadata, ..lease }).clone())
    }
}

impl Leases for Road {
    fn read(&self) -> BoxFuture<'_, Result<Option<Lease>, StoreError>> {
        Box::pin(async {
            self.travel().await;
            Ok(self.lease.lock().expect("nobody panics").clone())
        })
    }

    fn create(&self, spec: LeaseSpec) -> BoxFuture<'_, Result<Lease, StoreError>> {
        Box::pin(async {
            self.travel().await;
            self.store(Lease { spec: Some(spec), ..Lease::default() }, None)
        })
    }

    fn replace(&self, lease: Lease) -> BoxFuture<'_, Result<Lease, StoreError>> {
        Box::pin(async {
            self.travel().await;
            let seen = lease.metadata.resource_version.clone();
            self.store(lease, Some(&seen.unwrap_or_default()))
        })
    }
}

fn stands(road: &Road, name: &str) -> Leadership {
    Leadership::begin(Arc::new(road.clone()), name)
}

async fn leads(who: &Leadership) {
    let mut leads = who.leads.clone();
    leads.wait_for(|leads| *leads).await.expect("it stands");
}

#[tokio::test(start_paused = true)]
async fn the_first_leads_and_the_second_follows_as_long_as_the_first_renews() {
    let road = Road::default();
    let first = stands(&road, "first");
    leads(&first).await;
    let second = stands(&road.another(), "second");
    sleep(Duration::from_hours(1)).await;
    assert!(*first.leads.borrow() && !*second.leads.borrow());
    assert_eq!((road.holder().as_deref(), road.transitions()), (Some("first"), Some(1)));
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_is_cut_off_stops_before_another_begins() {
    let road = Road::default();
    let first = stands(&road, "first");
    leads(&first).await;
    let second = stands(&road.another(), "second");
    sleep(Duration::from_secs(30)).await;
    road.cut(true);
    let cut = Instant::now();
    let error = first.lost().await;
    assert_eq!(error.to_string(), "the Lease is lost");
    assert!(cut.elapsed() <= RENEW_DEADLINE, "{:?}", cut.elapsed());
    assert!(!*second.leads.borrow(), "two lead at once");
    leads(&second).await;
    assert!(cut.elapsed() <= DURATION + 2 * RETRY, "{:?}", cut.elapsed());
    assert_eq!((road.holder().as_deref(), road.transitions()), (Some("second"), Some(2)));
}

#[tokio::test(start_paused = true)]
async fn a_follower_that_was_cut_off_takes_nothing_from_a_leader_that_lives() {
    let road = Road::default();
    let first = stands(&road, "first");
    leads(&first).await;
    let far = road.another();
    let second = stands(&far, "second");
    for seconds in [1, 9, 10, 11, 25, 60] {
        sleep(Duration::from_secs(20)).await;
        far.cut(true);
        sleep(Duration::from_secs(seconds)).await;
        far.cut(false);
        sleep(Duration::from_secs(20)).await;
        assert!(*first.leads.borrow() && !*second.leads.borrow(), "after {seconds} s");
    }
    assert_eq!(road.transitions(), Some(1));
}

#[tokio::test(start_paused = true)]
async fn what_is_given_back_is_taken_at_the_next_look() {
    let road = Road::default();
    let first = stands(&road, "first");
    leads(&first).await;
    let second = stands(&road.another(), "second");
    sleep(Duration::from_secs(5)).await;
    first.release().await;
    assert_eq!(road.holder(), None);
    let given_back = Instant::now();
    leads(&second).await;
    assert!(given_back.elapsed() <= RETRY, "{:?}", given_back.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_starts_again_under_its_name_leads_at_once() {
    let road = Road::default();
    let first = stands(&road, "first");
    leads(&first).await;
    first.task.abort();
    let again = stands(&road, "first");
    let start = Instant::now();
    leads(&again).await;
    assert!(start.elapsed() < RETRY);
    assert_eq!(road.transitions(), Some(1), "its holder is the same");
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_somebody_else_holds_now_or_deleted_is_noticed() {
    let road = Road::default();
    let first = stands(&road, "first");
    leads(&first).await;
    *road.lease.lock().expect("nobody panics") = None;
    assert_eq!(first.lost().await.to_string(), "the Lease is lost");

    let first = stands(&road, "first");
    leads(&first).await;
    let mut taken = road.lease.lock().expect("nobody panics").clone().expect("it is there");
    taken.spec.as_mut().expect("it has one").holder_identity = Some("a person".to_owned());
    let seen = taken.metadata.resource_version.clone();
    road.store(taken, seen.as_deref()).expect("it takes it");
    assert_eq!(first.lost().await.to_string(), "the Lease is lost");
    assert_eq!(road.holder().as_deref(), Some("a person"));
}

#[tokio::test(start_paused = true)]
async fn of_many_exactly_one_leads() {
    let road = Road::default();
    let all: Vec<Leadership> = (0..20).map(|number| stands(&road.another(), &format!("r{number}"))).collect();
    for _ in 0..100 {
        sleep(Duration::from_millis(700)).await;
        assert!(all.iter().filter(|one| *one.leads.borrow()).count() <= 1);
    }
    assert_eq!(all.iter().filter(|one| *one.leads.borrow()).count(), 1);
}
