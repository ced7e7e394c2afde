//! Plugin instances: built from the registry, joined by the attributes that they write and read.

use super::{Inputs, refusal};
use crate::config::{Findings, Misfit, Place, PluginSpec, Reference, hint};
use crate::datalayer::SourceBinding;
use crate::plugin::{
    Admitter, AttributeNeed, AttributeReporter, AttributeTable, BuildContext, BuildError, DataProducer,
    ExtractorSpec, FairnessSource, Hold, Known, Part, PluginType, PreRequest, ResponseHook, Roles, Stability,
    StateStore, timed,
};
use serde_json::Value;
use std::sync::Arc;

/// A plugin instance.
pub struct Instance {
    /// Its name.
    pub name: Arc<str>,
    /// Its type.
    pub plugin_type: &'static str,
    /// What it can be used as; nothing when it could not be built.
    pub roles: Roles,
    /// The same without timers.
    plain: Roles,
    /// Where it is written; `None` when it was added.
    pub place: Option<Place>,
    /// Its path in the document; empty when it was added.
    pub path: String,
    /// Whether it could be built.
    pub sound: bool,
    /// The row of its type where this release knows it by name only.
    pub known: Option<&'static Known>,
    /// Its parameters as written.
    pub parameters: Value,
    used: bool,
    /// A shadow profile uses it.
    watched: bool,
    /// Only shadow profiles use it.
    aside: bool,
}

impl Instance {
    /// What it can be used as in a profile: calls of a `shadow` one count nowhere.
    pub fn roles_in(&self, shadow: bool) -> &Roles {
        if shadow { &self.plain } else { &self.roles }
    }

    /// Whether only shadow profiles use it.
    pub fn is_aside(&self) -> bool {
        self.aside
    }

    /// Whether it is known by name only, as something for `part`.
    pub fn known_as(&self, part: Part) -> bool {
        self.known.is_some_and(|row| row.is(part))
    }
}

type Named<T> = Vec<(Arc<str>, Arc<T>)>;

/// Where a plan is put together.
pub struct Workshop<'a> {
    inputs: &'a Inputs<'a>,
    table: AttributeTable,
    instances: Vec<Instance>,
    /// What is wrong and what deserves a word.
    pub findings: Findings,
}

impl<'a> Workshop<'a> {
    /// An empty workshop.
    pub fn new(inputs: &'a Inputs<'a>, findings: Findings) -> Self {
        let table = AttributeTable::with_scalars(inputs.scalars);
        Self { inputs, table, instances: Vec::new(), findings }
    }

    /// What it was started with.
    pub fn inputs(&self) -> &'a Inputs<'a> {
        self.inputs
    }

    /// The instances in order.
    pub fn instances(&self) -> &[Instance] {
        &self.instances
    }

    /// What is left when all is built.
    pub fn into_parts(self) -> (Findings, AttributeTable) {
        (self.findings, self.table)
    }

    /// Builds every instance of the configuration.
    pub fn build_all(&mut self, specs: &[PluginSpec]) {
        specs.iter().for_each(|spec| self.build(spec));
    }

    /// Builds an instance that nobody wrote, named like its type; the one that is there when there is one.
    pub fn build_default(&mut self, plugin_type: &str) {
        if self.find(plugin_type).is_none() {
            self.build(&PluginSpec::default_of(plugin_type));
        }
    }

    fn build(&mut self, spec: &PluginSpec) {
        if let Some(row) = self.inputs.registry.get(&spec.plugin_type) {
            self.tell_stability(spec, row.stability);
            self.build_as(spec, row, &spec.parameters, None);
        } else if let Some(known) = Known::find(&spec.plugin_type) {
            self.build_known(spec, known);
        } else {
            let told = format!("plugin type '{}' is not registered", spec.plugin_type);
            self.findings.problem(spec.place, spec.path.clone(), told);
        }
    }

    fn build_as(
        &mut self,
        spec: &PluginSpec,
        row: &PluginType,
        parameters: &Value,
        known: Option<&'static Known>,
    ) {
        let name: Arc<str> = spec.name.as_str().into();
        let built = (row.build)(&mut BuildContext {
            name: &name,
            parameters,
            state: self.inputs.state,
            clock: self.inputs.clock,
            prefix_index_bytes: self.inputs.prefix_index_bytes,
            table: &mut self.table,
        });
        for (_, told) in std::mem::take(&mut self.table.notices) {
            self.findings.notice(spec.place, spec.path.clone(), format!("plugin '{name}': {told}"));
        }
        let sound = built.is_ok();
        let roles = built.unwrap_or_else(|error| {
            self.tell_refusal(spec, row, &error);
            Roles::default()
        });
        self.push(spec, row.name, roles, sound, known);
    }

    /// A plugin that this release knows by name only: its stand-in, or an instance that does nothing.
    fn build_known(&mut self, spec: &PluginSpec, known: &'static Known) {
        let (name, plugin_type) = (&spec.name, known.name);
        let stand_in = known.stand_in.and_then(|t| self.inputs.registry.get(t));
        let does = match stand_in {
            Some(row) => format!("{} stands in for it, with its own defaults", row.name),
            None if known.is(Part::ProfileHandler) => "of its profiles only the primary one runs".to_owned(),
            None => "it has no effect".to_owned(),
        };
        let told = format!("plugin '{name}' (type: '{plugin_type}') is not part of this release: {does}");
        self.findings.notice(spec.place, spec.path.clone(), told);
        for fault in refusal::unknown(spec, self.inputs.registry.described(plugin_type).as_ref()) {
            self.tell_fault(spec, fault);
        }
        match stand_in {
            Some(row) => self.build_as(spec, row, &Value::Null, Some(known)),
            None => self.push(spec, known.name, Roles::default(), true, Some(known)),
        }
    }

    fn push(
        &mut self,
        spec: &PluginSpec,
        plugin_type: &'static str,
        roles: Roles,
        sound: bool,
        known: Option<&'static Known>,
    ) {
        self.instances.push(Instance {
            name: spec.name.as_str().into(),
            plugin_type,
            roles: timed(roles.clone(), plugin_type, &spec.name),
            plain: roles,
            place: spec.place,
            path: spec.path.clone(),
            sound,
            known,
            parameters: spec.parameters.clone(),
            used: false,
            watched: false,
            aside: false,
        });
    }

    fn tell_stability(&mut self, spec: &PluginSpec, stability: Stability) {
        let (name, plugin_type) = (&spec.name, &spec.plugin_type);
        let told = match stability {
            Stability::Beta => return,
            Stability::Alpha if self.inputs.allow_experimental => return,
            Stability::Alpha => format!(
                "plugin '{name}' (type: '{plugin_type}') has Alpha stability level and may change; \
                 --allow-experimental-plugins silences this"
            ),
            Stability::Deprecated(modern) => {
                format!(
                    "plugin '{name}': DEPRECATION: type '{plugin_type}' is the older name; use '{modern}'"
                )
            }
        };
        self.findings.notice(spec.place, spec.path.clone(), told);
    }

    /// Tells everything that is wrong with the parameters of an instance that was not built.
    fn tell_refusal(&mut self, spec: &PluginSpec, row: &PluginType, error: &BuildError) {
        let described = row.described();
        let again = |parameters: &Value| {
            let built = (row.build)(&mut BuildContext {
                name: &spec.name.as_str().into(),
                parameters,
                state: &StateStore::default(),
                clock: self.inputs.clock,
                prefix_index_bytes: self.inputs.prefix_index_bytes,
                table: &mut AttributeTable::default(),
            });
            built.err().map(|error| error.to_string())
        };
        for fault in refusal::faults(spec, described.as_ref(), &error.to_string(), &again) {
            self.tell_fault(spec, fault);
        }
    }

    fn tell_fault(&mut self, spec: &PluginSpec, fault: Misfit) {
        let at = if spec.path.is_empty() { String::new() } else { format!("{}.parameters", spec.path) };
        let path = match fault.path.as_str() {
            "" => at,
            below if below.starts_with('[') => at + below,
            below => format!("{at}.{below}"),
        };
        let (name, plugin_type) = (&spec.name, &spec.plugin_type);
        let told = format!("plugin '{name}' (type: '{plugin_type}'): {}", fault.told);
        self.findings.problem(fault.place, path, told);
    }

    /// The parameters in force of the instance called `name`, where it tells them.
    pub fn settings_of(&self, name: &str) -> Option<&Value> {
        self.table.settings.iter().find(|(instance, _)| **instance == *name).map(|(_, settings)| settings)
    }

    /// Index of the instance called `name`.
    pub fn find(&self, name: &str) -> Option<usize> {
        self.instances.iter().position(|i| *i.name == *name)
    }

    /// The instance that `reference` names, marked as used; `None` when there is none (which was told before) or it
    /// could not be built.
    pub fn take(&mut self, reference: &Reference) -> Option<&Instance> {
        let index = self.find(&reference.name)?;
        self.instances[index].used = true;
        Some(&self.instances[index]).filter(|i| i.sound)
    }

    /// The instance that a shadow profile's `reference` names, as [`Self::take`] has it, marked as watched.
    pub fn watch(&mut self, reference: &Reference) -> Option<&Instance> {
        let index = self.find(&reference.name)?;
        self.instances[index].watched = true;
        Some(&self.instances[index]).filter(|i| i.sound)
    }

    /// Marks the instance at `index` as used.
    pub fn mark(&mut self, index: usize) -> &Instance {
        self.instances[index].used = true;
        &self.instances[index]
    }

    /// Builds the default producers that are missing, and those that they need in turn.
    pub fn add_producers(&mut self) {
        let mut next = 0;
        while let Some(need) = self.table.needs.get(next).cloned() {
            next += 1;
            if self.find(&need.producer).is_none()
                && let Some(plugin_type) = need.default_producer
            {
                self.build_default(plugin_type);
            }
            self.check_need(&need);
        }
    }

    fn check_need(&mut self, need: &AttributeNeed) {
        let offered =
            self.table.offers.iter().any(|(kind, producer)| *kind == need.kind && *producer == need.producer);
        let producer = self.find(&need.producer).map(|index| self.instances[index].sound);
        // A producer that could not be built has been told.
        if offered || need.optional || producer == Some(false) {
            return;
        }
        if self.find(&need.producer).is_some_and(|index| self.instances[index].known.is_some()) {
            let reader = self.find(&need.reader).map(|index| &self.instances[index]);
            let (place, path) = reader.map_or((None, String::new()), |i| (i.place, i.path.clone()));
            let told =
                format!("plugin '{}' finds nothing to read: '{}' has no effect", need.reader, need.producer);
            self.findings.notice(place, path, told);
            return;
        }
        let why = match producer {
            Some(_) => format!("plugin '{}' does not produce it", need.producer),
            None => format!(
                "no plugin is called '{}'{}",
                need.producer,
                hint(&need.producer, self.instances.iter().map(|i| &*i.name))
            ),
        };
        let reader = self.find(&need.reader).map(|index| &self.instances[index]);
        let (place, path) = reader.map_or((None, String::new()), |i| (i.place, i.path.clone()));
        let told = format!("plugin '{}' needs {} from '{}': {why}", need.reader, need.kind, need.producer);
        self.findings.problem(place, path, told);
    }

    /// Sets aside what only shadow profiles use: plugins that nothing else names, and producers that were added for those
    /// alone. To be asked when all are added.
    pub fn set_aside(&mut self) {
        for instance in &mut self.instances {
            instance.aside = instance.watched && !instance.used && instance.roles.producer.is_none();
        }
        while let Some(index) = (0..self.instances.len()).find(|i| self.only_shadows_need(*i)) {
            self.instances[index].aside = true;
        }
        let aside = |name: &str| self.instances.iter().any(|i| i.aside && *i.name == *name);
        let mut readers = std::mem::take(&mut self.table.response_readers);
        readers.retain(|(reader, _)| !aside(reader));
        self.table.response_readers = readers;
        self.tell_deaf();
    }

    /// Whether the instance is a producer that was added, and only for instances that are set aside.
    fn only_shadows_need(&self, index: usize) -> bool {
        let instance = &self.instances[index];
        let added = instance.place.is_none() && !instance.used && instance.roles.producer.is_some();
        if !added || instance.aside {
            return false;
        }
        // Who reads it only where it is there is not to find it because of a shadow profile.
        let needs = self.table.needs.iter().filter(|need| need.producer == instance.name && !need.optional);
        let mut readers =
            needs.map(|need| self.find(&need.reader).map(|i| self.instances[i].aside)).peekable();
        readers.peek().is_some() && readers.all(|aside| aside == Some(true))
    }

    /// Tells plugins that would follow where requests go, and do not for a shadow profile alone.
    fn tell_deaf(&mut self) {
        for instance in &self.instances {
            let follows = instance.roles.pre_request.is_some() || instance.roles.response.is_some();
            if instance.aside && follows && instance.place.is_some() {
                let told = format!(
                    "plugin '{}' is used by shadow profiles only: it does not learn where requests go",
                    instance.name
                );
                self.findings.notice(instance.place, instance.path.clone(), told);
            }
        }
    }

    /// The producers, each after those whose attributes it reads, else in order of the configuration, those that are set
    /// aside apart. A cycle is told.
    pub fn producers_in_order(&mut self) -> [Named<dyn DataProducer>; 2] {
        let mut waiting: Vec<usize> =
            (0..self.instances.len()).filter(|i| self.instances[*i].roles.producer.is_some()).collect();
        let mut ordered = Vec::with_capacity(waiting.len());
        while !waiting.is_empty() {
            let ready = waiting.iter().position(|index| !self.waits_for(*index, &waiting));
            let Some(ready) = ready else {
                self.tell_cycle(&waiting);
                break;
            };
            ordered.push(waiting.remove(ready));
        }
        let of = |aside: bool| {
            let instances = ordered.iter().map(|i| &self.instances[*i]).filter(|i| i.aside == aside);
            instances.filter_map(|i| Some((Arc::clone(&i.name), i.roles.producer.clone()?))).collect()
        };
        [of(false), of(true)]
    }

    /// Producers that are set aside and follow where requests go.
    pub fn witnesses(&self) -> Named<dyn PreRequest> {
        let aside = self.instances.iter().filter(|i| i.aside && i.roles.producer.is_some());
        aside.filter_map(|i| Some((Arc::clone(&i.name), i.roles.pre_request.clone()?))).collect()
    }

    fn waits_for(&self, index: usize, waiting: &[usize]) -> bool {
        let name = &self.instances[index].name;
        let mut needs = self.table.needs.iter().filter(|need| need.reader == *name);
        needs.any(|need| waiting.iter().any(|other| self.instances[*other].name == need.producer))
    }

    fn tell_cycle(&mut self, waiting: &[usize]) {
        let names: Vec<&str> = waiting.iter().map(|i| &*self.instances[*i].name).collect();
        let told = format!(
            "cycle detected: the producers {} wait for each other's attributes; let one of them read another's",
            names.join(", ")
        );
        let place = waiting.iter().find_map(|i| self.instances[*i].place);
        self.findings.problem(place, "plugins", told);
    }

    /// Hooks before a request leaves and on its response, in order of the configuration.
    pub fn hooks(&self) -> (Named<dyn PreRequest>, Named<dyn ResponseHook>) {
        let named = |i: &Instance| Arc::clone(&i.name);
        let all = || self.instances.iter().filter(|i| !i.aside);
        let before = all().filter_map(|i| Some((named(i), i.roles.pre_request.clone()?)));
        let after = all().filter_map(|i| Some((named(i), i.roles.response.clone()?)));
        (before.collect(), after.collect())
    }

    /// Admitters, and who says whose share of the pool a request uses, in order of the configuration.
    pub fn gatekeepers(&self) -> (Named<dyn Admitter>, Named<dyn FairnessSource>) {
        let named = |i: &Instance| Arc::clone(&i.name);
        let admitters = self.instances.iter().filter_map(|i| Some((named(i), i.roles.admitter.clone()?)));
        let fairness = self.instances.iter().filter_map(|i| Some((named(i), i.roles.fairness.clone()?)));
        (admitters.collect(), fairness.collect())
    }

    /// What holds requests back, in order of the configuration.
    pub fn holds(&self) -> Named<dyn Hold> {
        let all = self.instances.iter();
        all.filter_map(|i| Some((Arc::clone(&i.name), i.roles.hold.clone()?))).collect()
    }

    /// What works out numbers for the proxy, in order of the configuration.
    pub fn reporters(&self) -> Named<dyn AttributeReporter> {
        let all = self.instances.iter();
        all.filter_map(|i| Some((Arc::clone(&i.name), i.roles.reporter.clone()?))).collect()
    }

    /// Tells the plugins that read a metric which no engine of the listed extractors defines.
    pub fn check_scalars(&mut self, sources: &[SourceBinding]) {
        let mut defined: Vec<&str> = Vec::new();
        for extractor in sources.iter().flat_map(|source| &source.extractors) {
            if let ExtractorSpec::CoreMetrics { engines, .. } = extractor {
                defined.extend(engines.iter().flat_map(|e| &e.custom).map(|(name, _)| name.as_str()));
            }
        }
        for (reader, id) in &self.table.scalar_readers {
            let Some(wanted) = self.table.scalars.get(usize::from(id.0)) else { continue };
            if defined.contains(&wanted.as_str()) {
                continue;
            }
            let told = format!(
                "plugin '{reader}' reads the metric '{wanted}', which no engine defines; add it to the `customMetrics` of \
                 an engine of core-metrics-extractor{}",
                hint(wanted, defined.iter().copied())
            );
            let instance = self.instances.iter().find(|i| i.name == *reader);
            let (place, path) = instance.map_or((None, String::new()), |i| (i.place, i.path.clone()));
            self.findings.problem(place, path, told);
        }
    }

    /// Tells the instances that are written but that nothing uses.
    pub fn tell_unused(&mut self) {
        for instance in &self.instances {
            let acts_alone = instance.roles.producer.is_some()
                || instance.roles.pre_request.is_some()
                || instance.roles.admitter.is_some()
                || instance.roles.reporter.is_some()
                || instance.roles.response.is_some();
            if instance.place.is_some()
                && instance.sound
                && instance.known.is_none()
                && !instance.used
                && !instance.watched
                && !acts_alone
            {
                let told = format!("plugin '{}' has no effect: nothing refers to it", instance.name);
                self.findings.notice(instance.place, instance.path.clone(), told);
            }
        }
    }
}
