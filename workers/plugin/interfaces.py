"""Private interfaces of vLLM that the worker uses, tested with 0.25.1 and 0.32.0.

vLLM may change them in any release. Before a new version is allowed in pyproject.toml, `make check-vllm
VERSION=...` has to pass, and then the tests with a real engine. The names also exist in 0.33.0.
"""

NAMES = {
    # workers/vllm_engine.py: hands requests to the engine without vLLM's checks and copies.
    "vllm.v1.engine.async_llm": (
        "AsyncLLM.from_engine_args",
        "AsyncLLM.errored",
        "AsyncLLM.add_lora(lora_request)",
        "AsyncLLM.pin_lora(lora_id)",
        "AsyncLLM.abort(internal)",
        "AsyncLLM.shutdown(timeout)",
        "AsyncLLM.output_handler",
        "AsyncLLM.output_processor",
        "AsyncLLM.engine_core",
    ),
    "vllm.v1.engine.output_processor": ("OutputProcessor.add_request(queue)", "RequestOutputCollector.put"),
    "vllm.v1.engine.core_client": ("AsyncMPClient.add_request_async", "AsyncMPClient.call_utility_async"),
    "vllm.v1.executor.uniproc_executor": ("UniProcExecutor",),
    # workers/vllm_engine.py and engine_args.py: adapters of a shared variant.
    "vllm.lora.request": ("LoRARequest(lora_name,lora_int_id,lora_path)",),
    "vllm.config.lora": ("MaxLoRARanks",),
    # workers/plugin/cpu_adapters.py: replaces the product of an adapter on a CPU.
    "vllm.lora.punica_wrapper.punica_cpu": (
        "PunicaWrapperCPU.add_lora_linear(y,x,lora_a_stacked,lora_b_stacked,scale,output_slices)",
        "PunicaWrapperCPU.update_metadata",
        "PunicaWrapperCPU.prefill_metadata",
    ),
    # workers/plugin/__init__.py: adds a method to the engine, which takes many requests at once.
    "vllm.v1.engine": (
        "EngineCoreRequest(request_id,external_req_id,prompt_token_ids,mm_features,sampling_params)",
        "EngineCoreRequest(pooling_params,arrival_time,lora_request,cache_salt,data_parallel_rank,priority)",
    ),
    "vllm.v1.engine.core": ("EngineCore.add_request", "EngineCore.preprocess_add_request"),
    "vllm.v1.worker.gpu_model_runner": ("supports_mrope(model)",),
    # workers/plugin/engine_steps.py: wraps two methods of the scheduler, and sets limits before each step.
    "vllm.v1.core.sched.scheduler": (
        "Scheduler.schedule",
        "Scheduler.update_from_output(scheduler_output)",
        "Scheduler.max_num_scheduled_tokens",
        "Scheduler.scheduler_config",
        "Scheduler.running",
        "Scheduler.waiting",
    ),
    "vllm.v1.core.sched.output": ("SchedulerOutput.total_num_scheduled_tokens",),
    "vllm.v1.core.sched.request_queue": ("RequestQueue.peek_request",),
    "vllm.config": (
        "SchedulerConfig.enable_chunked_prefill",
        "SchedulerConfig.long_prefill_token_threshold",
        "PoolerConfig.logit_mean",
    ),
    # workers/plugin/pooler.py and image_models.py: the model, and pooling across prefill chunks.
    "vllm.model_executor.layers.pooler.abstract": ("Pooler.get_supported_tasks",),
    "vllm.v1.pool.metadata": (
        "PoolingMetadata.get_pooling_cursor",
        "PoolingMetadata.pooling_params",
        "PoolingMetadata.pooling_states",
        "PoolingCursor.is_partial_prefill",
        "PoolingCursor.prompt_lens_cpu",
        "PoolingCursor.seq_lens_cpu",
        "PoolingCursor.num_scheduled_tokens_cpu",
        "PoolingStates.hidden_states_cache",
    ),
    "vllm.model_executor.models.qwen2_5_vl": (
        "Qwen2_5_VLForConditionalGeneration.hf_to_vllm_mapper",
        "Qwen2_5_VLForConditionalGeneration.get_mrope_input_positions(input_tokens,mm_features)",
        "Qwen2_5_VLMultiModalProcessor",
        "Qwen2_5_VLProcessingInfo",
        "Qwen2_5_VLDummyInputsBuilder",
    ),
    # workers/plugin/image_models.py: jina-reranker-m0.
    "vllm.model_executor.models.jina_vl": ("JinaVLForSequenceClassification(vllm_config,prefix)",),
    "vllm.model_executor.models.qwen2_vl": (
        "Qwen2VLMultiModalProcessor",
        "Qwen2VLProcessingInfo",
        "Qwen2VLDummyInputsBuilder",
    ),
    # workers/plugin/text_models.py: the backbones of v5 and v3.
    "vllm.model_executor.models.qwen3": ("Qwen3ForCausalLM(vllm_config,prefix)",),
    "vllm.model_executor.models.llama": ("LlamaForCausalLM(vllm_config,prefix)",),
    "vllm.model_executor.models.bert_with_rope": (
        "BertWithRope(vllm_config,prefix)",
        "JinaRobertaModel.hf_to_vllm_mapper",
    ),
    "vllm.model_executor.models.utils": ("WeightsMapper(orig_to_new_prefix)", "WeightsMapper.__or__"),
    # Environment variables that the worker sets.
    "vllm.envs": (
        "VLLM_WORKER_MULTIPROC_METHOD",
        "VLLM_MSGPACK_ZERO_COPY_THRESHOLD",
        "VLLM_CONFIGURE_LOGGING",
        "VLLM_LOGGING_LEVEL",
    ),
}
"""Module -> `name`, `Class.attribute` or `function(parameter,...)`."""
